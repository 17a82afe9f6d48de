//! `wick devices`: what can compute in this machine, and which providers can use it.

use serde_json::json;
use wick_nn::Hardware;

use crate::failure::Outcome;
use crate::host::HostArgs;
use crate::output::{self, Format};

/// Show the CPU, GPUs and NPUs of this machine and the providers that can use them
///
/// What there is comes from the kernel's files, and who can use it from the providers that are
/// installed, each of which is loaded for it. A device is granted if this process may open its
/// files.
#[derive(Debug, clap::Args)]
pub struct DevicesArgs {
    #[command(flatten)]
    host: HostArgs,
}

pub fn run(args: &DevicesArgs, format: Format) -> Outcome {
    let (inventory, refused) = args.host.nn()?.devices();
    if format == Format::Json {
        output::json(&json!({ "devices": inventory.devices, "refused": refused }));
        return Ok(());
    }
    let header = ["KIND", "VENDOR", "NAME", "MEMORY", "DRIVER", "PCI", "GRANTED", "PROVIDERS"];
    let mut table = output::table(header);
    inventory.devices.iter().for_each(|device| _ = table.add_row(row(device)));
    output::line(table.trim_fmt());
    for refusal in &refused {
        eprintln!("{} {}", output::cyan(&format!("{}:", refusal.what)), refusal.why);
    }
    Ok(())
}

fn row(device: &Hardware) -> [String; 8] {
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let memory =
        device.memory.map(|bytes| format!("{:.1} GiB", bytes as f64 / (1_u64 << 30) as f64));
    let providers = match device.providers.is_empty() {
        true => "none".to_owned(),
        false => device.providers.join(", "),
    };
    let granted = if device.granted { "yes" } else { "no" };
    [
        device.kind.to_string(),
        text(&device.vendor),
        text(&device.name),
        text(&memory),
        text(&device.driver),
        text(&device.pci),
        granted.to_owned(),
        providers,
    ]
}
