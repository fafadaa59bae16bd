//! A road to a server on which everything takes its time.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Passes connections on to a server and holds up what is sent to it. Its threads end with the test's process.
#[derive(Debug)]
pub struct SlowRoad {
    address: SocketAddr,
    delay: Arc<AtomicU64>,
}

impl SlowRoad {
    /// Opens a road to `server`, quick for now.
    ///
    /// # Panics
    /// When no port is free.
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let delay = Arc::new(AtomicU64::new(0));
        let held_up = Arc::clone(&delay);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(upstream) = TcpStream::connect(server) else { continue };
                let (Ok(back), Ok(forth)) = (upstream.try_clone(), client.try_clone()) else { continue };
                let delay = Arc::clone(&held_up);
                thread::spawn(move || pass_on(client, upstream, &delay));
                thread::spawn(move || pass_on(back, forth, &AtomicU64::new(0)));
            }
        });
        Self { address, delay }
    }

    /// Where it begins.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on everything takes so much longer.
    pub fn slow_down(&self, delay: Duration) {
        self.delay.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, delay: &AtomicU64) {
    let mut piece = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        thread::sleep(Duration::from_millis(delay.load(Ordering::Relaxed)));
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    // Whoever still reads or writes shall know.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
