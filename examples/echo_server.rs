//! The smallest real server: echoes lines, with every limit in place, until SIGINT, SIGTERM or SIGHUP.
//!
//! ```text
//! cargo run --example echo_server [ADDRESS]     default: 127.0.0.1:7000
//! nc 127.0.0.1 7000
//! ```

use std::env;

use c10k::framing::Delimiter;
use c10k::service::Echo;
use c10k::{Error, Server};

fn main() -> Result<(), Error> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());

    // A process may open 1,024 descriptors unless it asks for more. If it may not have more, the
    // server does with what there is.
    let _ = c10k::sys::raise_fd_limit();

    let server = Server::builder()
        .listen(&address)?
        .framing(Delimiter::new(b'\n'))
        .service(|| Echo) // made anew for each connection
        .stop_on_signals(true)
        .build()?;
    // `build` listens already: whoever reads this line can connect.
    for addr in server.local_addrs() {
        println!("listening on {addr}");
    }

    let stats = server.run()?;
    println!("{stats}");
    Ok(())
}
