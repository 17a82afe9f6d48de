//! Compiles the protocol's messages, without protoc. The client is there for tests and
//! benchmarks; it shares the messages with the server.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use protox::prost::Message as _;

const PROTO: &str = "inference.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/{PROTO}");
    let files = protox::compile([PROTO], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("inference.bin"), files.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::grpc::wire::Checked")
        // Contents are slices of the message, not copies.
        .bytes(".")
        // Parameters reach a guest in the same order whenever the same message is sent.
        .btree_map(".")
        .compile_fds(files.clone())?;
    let client = out.join("client");
    fs::create_dir_all(&client)?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .extern_path(".inference", "crate::grpc::proto")
        .out_dir(client)
        .compile_fds(files)?;
    Ok(())
}
