//! A JSON server: `{"A":7,"B":4}` is answered by `{"Sum":11}`.
//!
//! ```text
//! cargo run --example sum_server [ADDRESS]      default: 127.0.0.1:7000
//! printf '{"A":7,"B":4}' | nc -N 127.0.0.1 7000
//! ```
//!
//! Only the framing and the service differ from `echo_server`. The requests need nothing in
//! between: a JSON value ends where its last bracket closes, so the framing finds the end of
//! each by itself, and what one `recv` returned may hold three of them or a third of one.

use std::env;
use std::time::Duration;

use c10k::framing::JsonValue;
use c10k::service::Sum;
use c10k::{Error, Server};

fn main() -> Result<(), Error> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let server = Server::builder()
        .listen(&address)?
        // A request is two numbers. Who sends more than this is not asking for a sum.
        .framing(JsonValue::new().max_len(1024))
        .service(|| Sum)
        .idle_timeout(Duration::from_secs(10))
        .stop_on_signals(true)
        .build()?;
    for addr in server.local_addrs() {
        println!("listening on {addr}");
    }

    let stats = server.run()?;
    println!("{stats}");
    Ok(())
}
