//! How wasmtime is set up: limits that hold for every guest of the process, and the
//! pool that instances come from. It knows nothing of models.

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    WasmBacktraceDetails,
};

use crate::engine::EngineSettings;
use crate::error::LoadError;

/// Stack of WebAssembly frames. Twice wasmtime's default, since image code in debug
/// builds recurses deeply; a guest that needs more loops for ever.
pub(crate) const GUEST_STACK: usize = 1 << 20;

/// Stack that a call runs on: the guest's part, and as much again for host functions.
const FIBER_STACK: usize = 2 * GUEST_STACK;

/// Core instances of one component: a Rust component has four, a Python one with its
/// extension modules dozens. Only counted, nothing is reserved for them.
const CORE_INSTANCES_EACH: u32 = 64;

/// Linear memories of one component. A Rust component has one; the adapter of older
/// toolchains brings a second.
const MEMORIES_EACH: u32 = 2;

/// Tables of one component: its own and those of the shims between its parts.
const TABLES_EACH: u32 = 8;

/// Elements of one table. 20,000 is wasmtime's default, seen to be enough for large
/// C# modules; each costs eight bytes of reserved, not of used, memory.
const TABLE_ELEMENTS: usize = 20_000;

/// Largest 32-bit memory, and the address space that each slot of the pool reserves
/// so that compiled code needs no bounds checks.
const MEMORY_RESERVATION: u64 = 1 << 32;

/// Address space below which no memory gets a reservation: room for eight of them,
/// beside the process itself.
const MIN_ADDRESS_SPACE: u64 = 10 * MEMORY_RESERVATION;

/// Bytes of a slot that stay in memory between two requests and are zeroed by hand:
/// cheaper than giving pages back and faulting them in again. Guests of the examples
/// touch less than this.
const KEEP_RESIDENT: usize = 1 << 20;

/// The pool is tried with this part of the wanted slots when the address space is
/// short (39-bit kernels of small boards, `ulimit -v`), before it is given up.
const POOL_DIVISORS: [u32; 3] = [1, 4, 16];

/// A wasmtime engine and the number of instances that it has room for.
pub(crate) struct Built {
    pub engine: Engine,
    pub max_instances: u32,
}

/// Make an engine with the largest pool that fits, or with none and a warning.
///
/// # Errors
/// wasmtime does not support this machine.
pub(crate) fn build(settings: &EngineSettings) -> Result<Built, LoadError> {
    let wanted = settings.max_instances.max(1);
    for divisor in POOL_DIVISORS {
        let max_instances = (wanted / divisor).max(1);
        let mut config = base();
        let pool = pool(max_instances, settings.max_memory);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        match Engine::new(&config) {
            Ok(engine) => return Ok(Built { engine, max_instances }),
            Err(error) => {
                tracing::warn!(
                    max_instances,
                    error = format!("{error:#}"),
                    "no address space for a pool of guest instances; trying a smaller one"
                );
            }
        }
    }
    tracing::warn!("guest instances are allocated one by one, which is slower");
    let mut config = base();
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    if !has_room_for_reservations() {
        // Memories that move when they grow, with a bounds check at each access.
        config.memory_reservation(0).memory_reservation_for_growth(0);
    }
    let engine = Engine::new(&config).map_err(|error| LoadError::Engine(format!("{error:#}")))?;
    Ok(Built { engine, max_instances: wanted })
}

/// Everything but the allocator. It is part of the key of the cache, so processes
/// that share a folder share its entries only as long as this is the same for them.
fn base() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // Guests of component-model async don't exist in this version; without it a
        // store is cheaper to make.
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK)
        .async_stack_size(FIBER_STACK)
        .memory_init_cow(true)
        .memory_reservation(MEMORY_RESERVATION)
        .cranelift_opt_level(OptLevel::Speed)
        .parallel_compilation(true)
        // Names of functions are enough in a report; line tables would make the
        // compiled file a third larger, and it is read at every start.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .generate_address_map(false);
    config
}

/// Whether a limit on the address space (`ulimit -v`) leaves room for the
/// reservations of some memories.
fn has_room_for_reservations() -> bool {
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current;
    limit.is_none_or(|bytes| bytes >= MIN_ADDRESS_SPACE)
}

fn pool(max_instances: u32, max_memory: u64) -> PoolingAllocationConfig {
    let max_memory = usize::try_from(max_memory.min(MEMORY_RESERVATION)).unwrap_or(usize::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(max_instances)
        .total_core_instances(max_instances.saturating_mul(CORE_INSTANCES_EACH))
        .total_memories(max_instances.saturating_mul(MEMORIES_EACH))
        .total_tables(max_instances.saturating_mul(TABLES_EACH))
        .total_stacks(max_instances)
        .max_core_instances_per_component(CORE_INSTANCES_EACH)
        .max_memories_per_component(MEMORIES_EACH)
        .max_tables_per_component(TABLES_EACH)
        .max_tables_per_module(TABLES_EACH)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(max_memory)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(TABLE_ELEMENTS * size_of::<usize>())
        .pagemap_scan(Enabled::Auto);
    pool
}
