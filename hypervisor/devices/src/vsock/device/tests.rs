//! A guest that speaks packets, against the device with real sockets.

mod attacks;
mod guest;
mod streams;
