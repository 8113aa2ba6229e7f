//! Present so that cargo unpacks the vendored protoc, which `tools/protoc` runs for etcd-client and raft-proto.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
}
