//! `wick infer`: one request to a server or to a package, its answer printed.

use std::time::{Duration, Instant};

use crate::client::RemoteArgs;
use crate::failure::{Failure, Outcome};
use crate::host::{self, HostArgs};
use crate::input::InputArgs;
use crate::output::{self, Format};
use crate::quantity;
use crate::show;
use crate::target::Target;

/// Threads for one request at a time.
const WORKERS: usize = 1;

/// Send one request and print the answer
///
/// TARGET is a server's URL or a package, which is then loaded into this process.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick infer http://localhost:8080 filetype -i bytes=@report.pdf
  wick infer ./classifier -i image=@cat.jpg --normalize imagenet
  wick infer ./classifier -i '[[1, 2, 3, 4]]' --output json
  cat request.json | wick infer http://localhost:8080 ocr --json -")]
pub struct InferArgs {
    /// http://HOST:PORT, http://HOST:PORT/v2/models/NAME, or a package
    target: String,
    /// The model's name, if the server has several
    model: Option<String>,
    #[command(flatten)]
    input: InputArgs,
    /// Send and ask for tensors as JSON instead of binary data
    #[arg(long, overrides_with = "binary")]
    no_binary: bool,
    /// Send and ask for tensors as binary data (the default)
    #[arg(long)]
    binary: bool,
    /// Only these outputs
    #[arg(long = "only", value_name = "OUTPUT")]
    only: Vec<String>,
    /// Longest wait for the answer
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = quantity::duration)]
    timeout: Duration,
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(flatten)]
    host: HostArgs,
}

pub fn run(args: &InferArgs, format: Format) -> Outcome {
    host::block_on(WORKERS, infer(args, format))
}

async fn infer(args: &InferArgs, format: Format) -> Outcome {
    let model = args.model.as_deref();
    let target = Target::open(&args.target, model, &args.host, &args.remote, args.timeout).await?;
    let mut request = args.input.request(target.inputs(), None)?;
    request.outputs.extend(args.only.iter().cloned());
    let call = target.prepare(request, !args.no_binary);
    let start = Instant::now();
    let response = target.infer(&call).await?;
    let took = start.elapsed();
    match format {
        Format::Json => output::json(&show::json(target.model(), &response)),
        Format::Human => {
            output::line(show::table(&response));
            eprintln!("answered in {:.1} ms", took.as_secs_f64() * 1e3);
        }
        Format::Raw => match &response.outputs[..] {
            [(_, tensor)] => output::bytes(&show::raw(tensor)),
            outputs => {
                let names: Vec<_> = outputs.iter().map(|(name, _)| name.as_str()).collect();
                let names = names.join(", ");
                return Err(Failure::usage("--output raw prints one output")
                    .help(format!("choose one with --only: {names}")));
            }
        },
    }
    Ok(())
}
