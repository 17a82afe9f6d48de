//! What wasmtime generates from `sdk/wit`.

wasmtime::component::bindgen!({
    path: "../../sdk/wit",
    world: "wick:model/model",
    imports: {
        "wasi:nn/inference@0.2.0-rc-2024-10-28.[method]graph-execution-context.compute": async | trappable,
        "wasi:nn/graph@0.2.0-rc-2024-10-28.load": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    require_store_data_send: true,
    with: {
        "wick:model/types.tensor": crate::host::HostTensor,
        "wasi:nn/tensor.tensor": crate::host::NnTensor,
        "wasi:nn/graph.graph": crate::host::HostGraph,
        "wasi:nn/inference.graph-execution-context": crate::host::HostContext,
        "wasi:nn/errors.error": crate::host::NnError,
    },
});
