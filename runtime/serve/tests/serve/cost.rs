//! What a request costs the server's own thread, model and client excluded.

use std::sync::mpsc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use wick_package::Datatype;
use wick_serve::Server;

use crate::support::{Fixture, settings};

const REQUESTS: u32 = 2000;
const WARM: u32 = 200;

/// CPU time of this thread.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

#[test]
#[ignore = "a measurement: run it alone, with --nocapture"]
fn a_binary_request_of_600_kilobytes_costs_little() {
    let (send_addr, addr) = mpsc::channel();
    let stop = CancellationToken::new();
    let server = std::thread::Builder::new().name("server".into());
    let server = server.spawn({
        let stop = stop.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let fixture = Fixture::identity(Datatype::Fp32, &[1, 3, 224, 224]).await;
                let bound = Server::bind(settings()).await.unwrap();
                send_addr.send(bound.local_addr()).unwrap();
                let repository = fixture.repository.clone();
                let before = tokio::spawn(async move {
                    let want =
                        format!("nv_inference_count{{model=\"m\",version=\"1.0.0\"}} {WARM}\n");
                    let seen = |text: Vec<u8>| String::from_utf8(text).unwrap().contains(&want);
                    while !seen(repository.metrics_text().unwrap()) {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    cpu()
                });
                bound.serve(fixture.repository.clone(), stop).await;
                cpu() - before.await.unwrap()
            })
        }
    });
    let server = server.unwrap();
    let addr = addr.recv().unwrap();
    let header = r#"{"inputs":[{"name":"x","shape":[1,3,224,224],"datatype":"FP32","parameters":{"binary_data_size":602112}}],"outputs":[{"name":"y","parameters":{"binary_data":true}}]}"#;
    let head = format!(
        "POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\
         Inference-Header-Content-Length: {}\r\n\r\n{header}",
        header.len() + 602_112,
        header.len()
    );
    let message = [head.as_bytes(), &vec![0; 602_112]].concat();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let mut answer = vec![0; 700_000];
        for number in 0..WARM + REQUESTS {
            if number == WARM {
                // The server notes its time between the two parts.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            stream.write_all(&message).await.unwrap();
            let (mut read, mut want) = (0, usize::MAX);
            while read < want {
                let more = stream.read(&mut answer[read..]).await.unwrap();
                assert!(more > 0);
                read += more;
                let text = String::from_utf8_lossy(&answer[..read.min(500)]).to_lowercase();
                if let Some((head, _)) = text.split_once("\r\n\r\n") {
                    let length =
                        head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    want = head.len() + 4 + length.unwrap().parse::<usize>().unwrap();
                }
            }
        }
    });
    stop.cancel();
    let each = server.join().unwrap() / REQUESTS;
    println!("{each:?} of the server's thread for each request and its answer of 600 KB");
    assert!(each < Duration::from_millis(2), "{each:?}");
}
