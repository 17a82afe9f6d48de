//! A package's WebAssembly, from its bytes to something that can be instantiated:
//! read, compiled or taken from the cache, its world found by its exports, linked.

#![allow(unsafe_code, reason = "maps native code that the cache has checked")]

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;

use wasmtime::component::{Component, Linker, types::ComponentItem};
use wasmtime::{Engine, Module};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wick_package::{Blob, Digest};

use crate::bindings::ModelPre;
use crate::cache::{Cache, Key};
use crate::error::LoadError;
use crate::host::INTERFACES;
use crate::http::Instances;
use crate::state::State;
use crate::witx::CoreState;

/// Largest component. Python's, the largest there are, have 40 MiB.
const MAX_COMPONENT: u64 = 256 << 20;

/// First bytes of a component and of a core module: magic, version, layer.
const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";
const MODULE: [u8; 8] = *b"\0asm\x01\0\0\0";

/// Exports by which a world is known, best first; any version of the 0.2 line.
const HANDLER: &str = "wick:model/handler@0.1.0";
const HTTP: &str = "wasi:http/incoming-handler@0.2.";
const COMMAND: &str = "wasi:cli/run@0.2.";

/// Linked code, by world.
pub(crate) enum Program {
    Handler(ModelPre<State>),
    Http(Instances),
    Command(CommandPre<State>),
    Module(wasmtime::InstancePre<CoreState>),
}

/// What a program is made with.
pub(crate) struct Builder<'a> {
    pub engine: &'a Engine,
    pub components: &'a Linker<State>,
    pub modules: &'a wasmtime::Linker<CoreState>,
    pub cache: Option<&'a Cache>,
    /// Requests that one instance of a wasi-http guest answers.
    pub reuse: u32,
    /// For errors.
    pub model: &'a str,
    pub path: &'a str,
}

// === impl Builder ===

impl Builder<'_> {
    /// Read, compile and link. Blocks, for seconds if the cache has nothing.
    ///
    /// # Errors
    /// The file can't be read, is no WebAssembly, or does not fit this host.
    pub(crate) fn build(&self, blob: &Blob, must: Option<Digest>) -> Result<Program, LoadError> {
        let bytes = self.read(blob, must)?;
        match bytes.first_chunk::<8>() {
            Some(&COMPONENT) => self.component(&bytes),
            Some(&MODULE) => self.module(&bytes),
            _ if bytes.is_empty() => Err(self.invalid("it is empty".into())),
            _ => Err(self.invalid(
                "it does not begin like WebAssembly; build it for the target wasm32-wasip2".into(),
            )),
        }
    }

    fn read(&self, blob: &Blob, must: Option<Digest>) -> Result<Vec<u8>, LoadError> {
        if blob.len > MAX_COMPONENT {
            return Err(self.invalid(format!(
                "it has {} bytes, and at most {MAX_COMPONENT} are read",
                blob.len
            )));
        }
        let read = || {
            let mut file = File::open(&blob.path)?;
            let len = usize::try_from(blob.len).unwrap_or(usize::MAX);
            if blob.offset == 0 {
                let mut bytes = Vec::with_capacity(len);
                file.by_ref().take(blob.len).read_to_end(&mut bytes)?;
                return Ok(bytes);
            }
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, blob.offset)?;
            Ok(bytes)
        };
        let checked =
            |bytes: Vec<u8>| must.map_or(Ok(()), |must| must.check(&bytes)).map(|()| bytes);
        read().and_then(checked).map_err(|source| LoadError::Io {
            model: self.model.to_owned(),
            path: self.path.to_owned(),
            source,
        })
    }

    fn component(&self, bytes: &[u8]) -> Result<Program, LoadError> {
        let key = Key::new(self.engine, "component", &Digest::of(bytes));
        let component = match self.cached_component(&key) {
            Some(component) => component,
            None => {
                let component = Component::from_binary(self.engine, bytes)
                    .map_err(|error| self.invalid(format!("{error:#}")))?;
                self.keep(&key, component.serialize());
                component
            }
        };
        self.link(&component)
    }

    fn module(&self, bytes: &[u8]) -> Result<Program, LoadError> {
        let key = Key::new(self.engine, "module", &Digest::of(bytes));
        let module = match self.cached_module(&key) {
            Some(module) => module,
            None => {
                let module = Module::from_binary(self.engine, bytes)
                    .map_err(|error| self.invalid(format!("{error:#}")))?;
                self.keep(&key, module.serialize());
                module
            }
        };
        if module.get_export("_start").is_none() {
            return Err(self.misfit(
                "it is a core module without a function `_start`; make it a command, \
                 or a component for one of the worlds wick:model/handler, \
                 wasi:http/incoming-handler, wasi:cli/run"
                    .into(),
            ));
        }
        let linked = self.modules.instantiate_pre(&module);
        linked.map(Program::Module).map_err(|error| {
            let missing = self.missing_functions(&module);
            self.misfit(if missing.is_empty() { format!("{error:#}") } else { missing })
        })
    }

    fn cached_component(&self, key: &Key) -> Option<Component> {
        let mut entry = self.cache?.find(key)?;
        // SAFETY: the entry was written by this user from what wasmtime serialised,
        // nobody else could have changed it, and its digest was checked on the very
        // file that is mapped here; files of the cache are replaced, never rewritten.
        let mapped = unsafe { Component::deserialize_file(self.engine, entry.path()) };
        // Without `/proc` the file can't be mapped and is read instead.
        let loaded = mapped.or_else(|_| {
            let bytes = entry.bytes()?;
            // SAFETY: as above.
            unsafe { Component::deserialize(self.engine, bytes) }
        });
        self.usable(key, loaded)
    }

    fn cached_module(&self, key: &Key) -> Option<Module> {
        let mut entry = self.cache?.find(key)?;
        // SAFETY: as in `cached_component`.
        let mapped = unsafe { Module::deserialize_file(self.engine, entry.path()) };
        let loaded = mapped.or_else(|_| {
            let bytes = entry.bytes()?;
            // SAFETY: as in `cached_component`.
            unsafe { Module::deserialize(self.engine, bytes) }
        });
        self.usable(key, loaded)
    }

    fn usable<T>(&self, key: &Key, loaded: wasmtime::Result<T>) -> Option<T> {
        loaded
            .inspect_err(|error| {
                let model = self.model;
                tracing::warn!(model, ?key, "a compiled component is refused: {error:#}");
            })
            .ok()
    }

    fn keep(&self, key: &Key, code: wasmtime::Result<Vec<u8>>) {
        match (self.cache, code) {
            (None, _) => {}
            (Some(cache), Ok(code)) => cache.store(key, &code),
            (_, Err(error)) => {
                let model = self.model;
                tracing::warn!(model, "a compiled component can't be kept: {error:#}");
            }
        }
    }

    fn link(&self, component: &Component) -> Result<Program, LoadError> {
        let ty = component.component_type();
        let exports: Vec<_> = ty.exports(self.engine).map(|(name, _)| name.to_owned()).collect();
        let exports = |world: &str| exports.iter().any(|name| name.starts_with(world));
        let is_world = [HANDLER, HTTP, COMMAND].into_iter().any(exports);
        if !is_world {
            return Err(self.misfit(format!(
                "it exports none of the worlds {HANDLER}, {HTTP}x, {COMMAND}x; \
                 implement one, for instance with the crate `wick-guest`"
            )));
        }
        if self.reuse > 1 && (exports(HANDLER) || !exports(HTTP)) {
            return Err(self.misfit(
                "`reuse` in [handler] is for guests of wasi:http, and this is none; remove it"
                    .into(),
            ));
        }
        let pre = self.components.instantiate_pre(component).map_err(|error| {
            let missing = self.missing_interfaces(component);
            self.misfit(if missing.is_empty() { format!("{error:#}") } else { missing })
        })?;
        let program = if exports(HANDLER) {
            ModelPre::new(pre).map(Program::Handler)
        } else if exports(HTTP) {
            ProxyPre::new(pre).map(|pre| Program::Http(Instances::new(pre, self.reuse)))
        } else {
            CommandPre::new(pre).map(Program::Command)
        };
        program.map_err(|error| self.misfit(format!("{error:#}")))
    }

    /// Names what a component imports and this host does not have.
    fn missing_interfaces(&self, component: &Component) -> String {
        let ty = component.component_type();
        let missing: Vec<_> = ty
            .imports(self.engine)
            .filter(|(name, _)| !INTERFACES.iter().any(|have| name.starts_with(have)))
            // Types alone need nothing of the host.
            .filter(|(_, item)| !matches!(item.ty, ComponentItem::Type(_)))
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        lacks(&missing, &INTERFACES.map(|name| name.trim_end_matches('/')))
    }

    fn missing_functions(&self, module: &Module) -> String {
        const MODULES: [&str; 2] = ["wasi_snapshot_preview1", "wasi_ephemeral_nn"];
        let missing: Vec<_> = module
            .imports()
            .filter(|import| !MODULES.contains(&import.module()))
            .map(|import| format!("`{}` `{}`", import.module(), import.name()))
            .collect();
        lacks(&missing, &MODULES)
    }

    fn invalid(&self, detail: String) -> LoadError {
        let (model, path) = (self.model.to_owned(), self.path.to_owned());
        LoadError::Component { model, path, detail }
    }

    fn misfit(&self, detail: String) -> LoadError {
        let (model, path) = (self.model.to_owned(), self.path.to_owned());
        LoadError::World { model, path, detail }
    }
}

fn lacks(missing: &[String], have: &[&str]) -> String {
    if missing.is_empty() {
        return String::new();
    }
    format!(
        "it imports {}, which this host does not have; remove what needs it, or compose \
         the component with one that exports it. This host has {}",
        missing.join(", "),
        have.join(", ")
    )
}
