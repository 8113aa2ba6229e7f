//! Service rules as flat nftables maps, written over netlink in one transaction, with no external program.
//!
//! One table per instance and family. A frontend is one element of a verdict map that leads to a chain shared by all
//! frontends with as many endpoints; that chain draws a number and looks the endpoint up in one map. So the kernel's
//! work to load n services is linear, and a change of one endpoint is a few elements.
//! Semantics: nf_tables(8), `include/uapi/linux/netfilter/nf_tables.h`.

mod elements;
mod expression;
mod family;
mod rules;
mod table;

pub(crate) use table::Tables;
