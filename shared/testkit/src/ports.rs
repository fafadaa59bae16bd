//! Ports that nobody listens on and that no other test will be given.

use std::fs::File;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below what kernels hand out to outgoing connections (from 32768 on Linux): a port asked of the kernel itself may be
/// given to the next caller too, or become the local end of any connection before its owner listens.
const RANGE: Range<u16> = 10_240..32_768;

/// How far this process has come through [`RANGE`]; processes start at different places.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A loopback address with a free port that belongs to this process until it ends, whether or not it is listened on.
///
/// # Panics
/// When the machine has no port left, or the directory for temporary files takes no file.
pub fn free() -> SocketAddr {
    let count = RANGE.end - RANGE.start;
    let start = u16::try_from(process::id().wrapping_mul(61) % u32::from(count)).unwrap_or_default();
    for _ in 0..count {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % count;
        let port = RANGE.start + (start + step) % count;
        if claim(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return (Ipv4Addr::LOCALHOST, port).into();
        }
    }
    panic!("no free port in {RANGE:?} (or no file can be made in {})", std::env::temp_dir().display());
}

/// Locks the port's file for as long as this process lives, so that tests in other processes pass it over.
fn claim(port: u16) -> bool {
    let Ok(file) = File::create(std::env::temp_dir().join(format!("troupe-test-port-{port}"))) else { return false };
    let ours = file.try_lock().is_ok();
    if ours {
        // Closed, and by that unlocked, by the kernel when the process ends.
        mem::forget(file);
    }
    ours
}

#[cfg(test)]
mod tests {
    use super::free;
    use std::collections::HashSet;

    #[test]
    fn no_port_is_given_twice() {
        let ports: HashSet<u16> = (0..50).map(|_| free().port()).collect();
        assert_eq!(ports.len(), 50);
    }
}
