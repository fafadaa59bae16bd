//! Frames, HTTP heads, credits and the handshake of the mesh, without I/O: everything here takes bytes and the time and
//! gives bytes back, so that it can be fuzzed and simulated.

pub mod credit;
pub mod decoder;
pub mod frame;
pub mod handshake;
pub mod head;
pub mod payload;
pub mod stream_id;
mod text;
pub mod trace;
