//! What ONNX Runtime tells only by its C interface: where a device is, who made it, and which
//! provider got which node of a graph.
#![allow(unsafe_code, reason = "ort has no safe functions for these")]

use std::ffi::{CStr, c_char};
use std::{ptr, slice};

use ort::device::{Device, HardwareDevice};
use ort::session::Session;
use ort::sys::{OrtEpAssignedNode, OrtEpAssignedSubgraph, OrtKeyValuePairs};
use ort::{AsPointer as _, ortsys};

/// Nodes of a graph after its optimisation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Assignment {
    pub on_device: usize,
    pub all: usize,
}

// === impl Assignment ===

impl Assignment {
    /// Which nodes `provider` has got. The session must have been made with
    /// `session.record_ep_graph_assignment_info` set.
    pub(super) fn of(session: &Session, provider: &str) -> ort::Result<Self> {
        let (mut graphs, mut count) = (ptr::null::<*const OrtEpAssignedSubgraph>(), 0);
        // SAFETY: the session is valid; what is returned belongs to it and outlives this call.
        ortsys![unsafe Session_GetEpGraphAssignmentInfo(session.ptr(), &mut graphs, &mut count)?];
        let mut assignment = Self::default();
        // SAFETY: as many pointers are there as it said.
        for &graph in unsafe { all(graphs, count) } {
            let mut name = ptr::null();
            // SAFETY: the pointer comes from the call above.
            ortsys![unsafe EpAssignedSubgraph_GetEpName(graph, &mut name)?];
            let (mut nodes, mut count) = (ptr::null::<*const OrtEpAssignedNode>(), 0);
            // SAFETY: as above.
            ortsys![unsafe EpAssignedSubgraph_GetNodes(graph, &mut nodes, &mut count)?];
            assignment.all += count;
            // SAFETY: the name belongs to the session.
            if unsafe { text(name) } == Some(provider) {
                assignment.on_device += count;
            }
        }
        Ok(assignment)
    }

    /// Part of the nodes on the device. Of a graph that nothing is known of, none.
    pub(super) fn share(self) -> f32 {
        if self.all == 0 { 0.0 } else { self.on_device as f32 / self.all as f32 }
    }
}

/// PCI vendor of a device, or whatever its bus has in its place.
pub(super) fn vendor_id(device: &HardwareDevice<'_>) -> u32 {
    // SAFETY: the device is valid as long as its environment, which is never closed.
    ortsys![unsafe HardwareDevice_VendorId(device.ptr())]
}

/// An entry of what was found out about a device.
pub(super) fn metadata(device: &HardwareDevice<'_>, key: &CStr) -> Option<String> {
    // SAFETY: as in `vendor_id`.
    value(ortsys![unsafe HardwareDevice_Metadata(device.ptr())], key)
}

/// An entry of what a provider says about itself and the device.
pub(super) fn provider_metadata(device: &Device<'_>, key: &CStr) -> Option<String> {
    // SAFETY: as in `vendor_id`.
    value(ortsys![unsafe EpDevice_EpMetadata(device.ptr())], key)
}

fn value(pairs: *const OrtKeyValuePairs, key: &CStr) -> Option<String> {
    if pairs.is_null() {
        return None;
    }
    // SAFETY: the pairs belong to a device that lives, and the key is terminated.
    let value = ortsys![unsafe GetKeyValue(pairs, key.as_ptr())];
    // SAFETY: the value belongs to the pairs, and is copied at once.
    unsafe { text(value) }.map(str::to_owned)
}

/// # Safety
/// `text` is null, or terminated and valid for as long as the result is used.
unsafe fn text<'t>(text: *const c_char) -> Option<&'t str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
}

/// # Safety
/// There are `count` values at `first`, valid for as long as the result is used.
unsafe fn all<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(first, count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_all_nodes_and_nothing_known_is_none() {
        assert_eq!(Assignment { on_device: 3, all: 4 }.share(), 0.75);
        assert_eq!(Assignment::default().share(), 0.0);
    }
}
