//! A service of one's own: a key-value store that all connections share.
//!
//! ```text
//! cargo run --example custom_service [ADDRESS]  default: 127.0.0.1:7000
//! printf 'SET colour dark green\nGET colour\nQUIT\n' | nc 127.0.0.1 7000
//! ```
//!
//! A service gets a whole request and writes a reply. It knows nothing of sockets: where requests
//! begin and end, who has sent half of one, and who does not read the replies is not its concern.

use std::collections::HashMap;
use std::env;
use std::sync::{Arc, Mutex};

use c10k::framing::Delimiter;
use c10k::service::{Outcome, Reply, Service};
use c10k::{Error, Server};

/// What all connections share. Keys are never thrown away: a real store would have a limit.
type Map = Arc<Mutex<HashMap<Vec<u8>, Vec<u8>>>>;

/// The service of one connection.
struct Store {
    /// The same for all.
    map: Map,
    /// Its own: no lock is needed for what no other connection sees.
    requests: u64,
}

impl Service for Store {
    fn call(&mut self, request: &[u8], reply: &mut Reply<'_>) -> Outcome {
        self.requests += 1;
        // Never contended here, since one loop calls all the services in turn; but the server can
        // be told to have a thread for each connection, and then this service still works.
        let mut map = self.map.lock().expect("no panic while it is locked");
        let mut words = request.splitn(3, |&byte| byte == b' ');
        match (words.next(), words.next(), words.next()) {
            (Some(b"GET"), Some(key), None) => match map.get(key) {
                Some(value) => {
                    reply.extend(b"VALUE ");
                    reply.extend(value);
                }
                None => reply.extend(b"NONE"),
            },
            (Some(b"SET"), Some(key), Some(value)) => {
                map.insert(key.to_vec(), value.to_vec());
                reply.extend(b"OK");
            }
            (Some(b"QUIT"), None, None) => {
                write!(reply, "BYE after {} requests", self.requests); // cannot fail
                return Outcome::Close; // once the reply is sent
            }
            _ => {
                reply.extend(b"ERROR not GET key, SET key value or QUIT");
                return Outcome::Reject; // the next line may be better
            }
        }
        Outcome::Reply
    }
}

fn main() -> Result<(), Error> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let map = Map::default();
    let server = Server::builder()
        .listen(&address)?
        .framing(Delimiter::new(b'\n'))
        .service(move || Store { map: map.clone(), requests: 0 }) // called for each connection
        .stop_on_signals(true)
        .build()?;
    for addr in server.local_addrs() {
        println!("listening on {addr}");
    }

    let stats = server.run()?;
    println!("{stats}");
    Ok(())
}
