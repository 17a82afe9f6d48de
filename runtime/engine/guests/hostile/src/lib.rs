//! A handler that does what its parameter `mode` says, most of it bad.

#![allow(unsafe_code, reason = "what `export!` expands to")]
#![allow(
    clippy::mem_forget,
    clippy::exit,
    clippy::print_stdout,
    reason = "to leak, to exit and to flood the log is what this guest is for"
)]

wit_bindgen::generate!({
    path: "../../../../sdk/wit",
    world: "wick:model/model",
    generate_all,
});

use std::hint::black_box;
use std::time::Duration;

use exports::wick::model::handler::{Error, Guest, Request, Response};
use wasi::nn::errors::Error as NnError;
use wasi::nn::graph::{ExecutionTarget, GraphEncoding, load, load_by_name};
use wasi::nn::tensor::{Tensor as NnTensor, TensorType};
use wick::model::types::{Datatype, Parameter, Tensor};

/// How often it leaks.
const LEAKS: u32 = 100_000;

/// Size of a huge tensor.
const HUGE: usize = 8 << 20;

struct Hostile;

type Answer = Result<Response, Error>;

impl Guest for Hostile {
    fn infer(mut request: Request) -> Answer {
        let mode = text(&request, "mode");
        let (_, x) = request.inputs.remove(0);
        match mode.as_str() {
            "good" => answer("y", x),
            "wrong-name" => answer("z", x),
            "wrong-datatype" => answer("y", tensor(Datatype::Int32, &[1], vec![0; 4])?),
            "wrong-shape" => answer("y", tensor(Datatype::Fp32, &[1, 1], vec![0; 4])?),
            "no-output" => Ok(Response { parameters: vec![], outputs: vec![] }),
            "twice" => Ok(Response {
                parameters: vec![],
                outputs: vec![("y".into(), x.clone()), ("y".into(), x)],
            }),
            "bad-input" => Err(Error::BadInput("not this".into())),
            "not-found" => Err(Error::NotFound("no such label".into())),
            "too-large" => Err(Error::TooLarge("too many pixels".into())),
            "unavailable" => Err(Error::Unavailable("come back later".into())),
            "deadline" => Err(Error::Deadline("too slow".into())),
            "internal" => Err(Error::Internal("my mistake".into())),
            "env" => Err(Error::Internal(std::env::var("TOKEN").unwrap_or_else(|_| "none".into()))),
            "file" => file(&text(&request, "path")),
            _ => end_badly(&mode, x).or_else(|()| misuse(&mode, &request)),
        }
    }
}

export!(Hostile);

/// Ways to end the instance.
fn end_badly(mode: &str, x: Tensor) -> Result<Response, ()> {
    match mode {
        "loop" => loop {
            black_box(0);
        },
        "sleep" => std::thread::sleep(Duration::from_secs(3600)),
        "allocate" => {
            let mut all = Vec::new();
            loop {
                all.push(black_box(vec![1_u8; 1 << 20]));
            }
        }
        "panic" => panic!("no luck today"),
        "recurse" => {
            black_box(recurse(1));
        }
        "unreachable" => trap(),
        "exit" => std::process::exit(3),
        "print" => {
            for line in 0..1_000_000 {
                println!("line {line}");
            }
        }
        "print-long" => print!("{}", "x".repeat(4 << 20)),
        "leak-clones" => (0..LEAKS).for_each(|_| std::mem::forget(x.clone())),
        "leak-nn" => (0..LEAKS).for_each(|_| {
            std::mem::forget(NnTensor::new(&[1], TensorType::U8, &[1]));
        }),
        "drop-clones" => (0..LEAKS).for_each(|_| drop(x.clone())),
        "huge-nn" => {
            let bytes = vec![0; HUGE];
            let dims = [u32::try_from(HUGE).unwrap_or(u32::MAX)];
            (0..1000).for_each(|_| std::mem::forget(NnTensor::new(&dims, TensorType::U8, &bytes)));
        }
        _ => return Err(()),
    }
    Ok(Response { parameters: vec![], outputs: vec![("y".into(), x)] })
}

/// Calls that the host refuses, or answers.
fn misuse(mode: &str, request: &Request) -> Answer {
    match mode {
        "leak-new" => {
            for _ in 0..LEAKS {
                std::mem::forget(tensor(Datatype::Uint8, &[1], vec![1])?);
            }
            Err(Error::Internal("it went on for ever".into()))
        }
        "huge-new" => {
            for _ in 0..1000 {
                std::mem::forget(tensor(Datatype::Uint8, &[HUGE as u64], vec![0; HUGE])?);
            }
            Err(Error::Internal("it went on for ever".into()))
        }
        "overflowing-shape" => answer("y", tensor(Datatype::Fp32, &[1 << 40, 1 << 40], vec![])?),
        "short-nn" => {
            let short = NnTensor::new(&[4], TensorType::Fp32, &[0; 3]);
            answer("y", Tensor::from_nn(&short)?)
        }
        "short-nn-compute" => compute(NnTensor::new(&[4], TensorType::Fp32, &[0; 3]), "g"),
        "compute" => {
            let x = tensor(Datatype::Fp32, &[2], [1.0_f32, 2.0].map(f32::to_le_bytes).concat())?;
            compute(x.to_nn()?, "g")
        }
        "missing-graph" => compute(NnTensor::new(&[1], TensorType::Fp32, &[0; 4]), "nope"),
        "garbage-graph" => {
            let garbage = vec![vec![7; 1000]];
            load(&garbage, GraphEncoding::Onnx, ExecutionTarget::Cpu).map_err(nn)?;
            Err(Error::Internal("garbage was loaded".into()))
        }
        "wrong-encoding" => {
            load(&[vec![1]], GraphEncoding::Pytorch, ExecutionTarget::Cpu).map_err(nn)?;
            Err(Error::Internal("it was loaded".into()))
        }
        "gpu-graph" => {
            load(&[vec![1]], GraphEncoding::Onnx, ExecutionTarget::Gpu).map_err(nn)?;
            Err(Error::Internal("it was loaded".into()))
        }
        _ => {
            Err(Error::NotFound(format!("no mode `{mode}`; inputs left {}", request.inputs.len())))
        }
    }
}

fn compute(x: NnTensor, graph: &str) -> Answer {
    let graph = load_by_name(graph).map_err(nn)?;
    let context = graph.init_execution_context().map_err(nn)?;
    let mut outputs = context.compute(vec![("x".into(), x)]).map_err(nn)?;
    let (_, y) = outputs.remove(0);
    answer("y", Tensor::from_nn(&y)?)
}

fn file(path: &str) -> Answer {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| format!("error: {error}"));
    let written = std::fs::write(path, "changed").is_ok();
    Err(Error::Internal(format!("{text}, written: {written}")))
}

fn answer(name: &str, tensor: Tensor) -> Answer {
    Ok(Response { parameters: vec![], outputs: vec![(name.into(), tensor)] })
}

fn tensor(datatype: Datatype, shape: &[u64], data: Vec<u8>) -> Result<Tensor, Error> {
    Tensor::new(datatype, shape, &data)
}

fn text(request: &Request, name: &str) -> String {
    let found = request.parameters.iter().find(|(key, _)| key == name);
    match found {
        Some((_, Parameter::Text(text))) => text.clone(),
        _ => String::new(),
    }
}

fn nn(error: NnError) -> Error {
    Error::Internal(format!("{:?}: {}", error.code(), error.data()))
}

#[allow(unconditional_recursion, reason = "that is what it is for")]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 4]);
    frame[0] + recurse(depth + 1) + frame[3]
}

#[cfg(target_family = "wasm")]
fn trap() {
    std::arch::wasm32::unreachable()
}

#[cfg(not(target_family = "wasm"))]
fn trap() {
    std::process::abort()
}
