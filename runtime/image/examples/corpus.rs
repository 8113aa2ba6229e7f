//! Writes the corpus of layers as OCI layouts, one a case, to compare with what others make of them:
//! `cargo run -p runtime-image --example corpus DIR`, then `umoci unpack --image DIR/NAME:latest ...`.
#![allow(clippy::unwrap_used, missing_docs, dead_code)]

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[path = "../src/layer/corpus.rs"]
mod corpus;

fn main() {
    let to = PathBuf::from(std::env::args_os().nth(1).unwrap());
    for case in corpus::cases() {
        let dir = to.join(case.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        let put = |bytes: &[u8], kind: &str| -> (Value, String) {
            let hex = Sha256::digest(bytes).iter().fold(String::new(), |text, b| text + &format!("{b:02x}"));
            fs::write(dir.join("blobs/sha256").join(&hex), bytes).unwrap();
            let kind = format!("application/vnd.oci.image.{kind}");
            (
                json!({"mediaType": kind, "digest": format!("sha256:{hex}"), "size": bytes.len()}),
                format!("sha256:{hex}"),
            )
        };
        let (layer, diff) = put(&case.archive, "layer.v1.tar");
        let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff]}});
        let (config, _) = put(config.to_string().as_bytes(), "config.v1+json");
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
        let (mut manifest, _) = put(manifest.to_string().as_bytes(), "manifest.v1+json");
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        fs::write(dir.join("index.json"), index.to_string()).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        println!("{}\t{}", dir.display(), if case.refused.is_some() { "refused" } else { "unpacked" });
    }
}
