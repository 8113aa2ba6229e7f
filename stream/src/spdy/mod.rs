//! SPDY/3.1 as Kubernetes uses it: streams that the client opens, no flow control (client-go's has none).

pub(crate) mod command;
mod dictionary;
mod frame;
mod headers;
mod session;

pub(crate) use session::{Session, Stream};
#[cfg(test)]
pub(crate) use {
    frame::{Head, control, data},
    headers::Deflater,
};
