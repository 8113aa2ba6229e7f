//! `unpack`: an image of host files from an OCI layout to files that a container can start from, beside umoci.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use super::host::{Host, output, quiet};
use super::process::children_cpu_seconds;
use super::row::{Contender, Figure, Row};

pub(super) const ROW: Row = Row {
    id: "unpack",
    what: "an image of three layers (compilers, headers, documents of this host) from an OCI layout, digests verified; \
           ours is on the disk then",
    once: false,
    contenders,
};

/// Below `/`; each is a layer: a few large files, many small ones, many of all sizes.
const LAYERS: [&str; 3] = ["usr/lib/gcc", "usr/include", "usr/share/doc"];

/// Writes an OCI layout of `$@` to `$D`, as image-layout.md and image.md have it.
const LAYOUT: &str = r#"
B=$D/blobs/sha256 DIFFS= LAYERS=
mkdir -p $B
put() { S=$(sha256sum < $1 | cut -d' ' -f1); N=$(stat -c %s $1); mv $1 $B/$S; }
for dir in "$@"; do
    tar -C / --sort=name -cf $D/tar $dir
    DIFFS="$DIFFS,\"sha256:$(sha256sum < $D/tar | cut -d' ' -f1)\""
    gzip $D/tar; put $D/tar.gz
    LAYERS="$LAYERS,{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"sha256:$S\",\"size\":$N}"
done
printf '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[%s]}}' "${DIFFS#,}" > $D/new
put $D/new
CONFIG="{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"sha256:$S\",\"size\":$N}"
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' \
    "$CONFIG" "${LAYERS#,}" > $D/new
put $D/new
NAME='"annotations":{"org.opencontainers.image.ref.name":"bench"}'
printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,%s}]}' \
    $S $N "$NAME" > $D/index.json
printf '{"imageLayoutVersion":"1.0.0"}' > $D/oci-layout
"#;

fn contenders(host: &Host) -> Result<Vec<Contender<'_>>> {
    let layout = host.fresh("layout")?;
    quiet(Command::new("bash").args(["-ec", LAYOUT, "bash"]).args(LAYERS).env("D", &layout))
        .context("make an image")?;
    let ours = {
        let layout = layout.clone();
        move |to: &Path| {
            let mut command = Command::new(host.trimtab());
            command.arg("image").arg("--data-dir").arg(to).arg("import").arg(&layout);
            command
        }
    };
    let mut all = vec![Contender::new("trimtab image import", turns(host, "ours", ours))];
    if let Some(umoci) = host.peer("umoci") {
        let theirs = move |to: &Path| {
            let mut command = Command::new(&umoci);
            command.args(["unpack", "--image"]).arg(format!("{}:bench", layout.display())).arg(to);
            command
        };
        all.push(Contender::new("umoci unpack", turns(host, "umoci", theirs)));
    }
    Ok(all)
}

/// Each turn has a directory of its own, and nothing is removed between turns: for a while after a removal ext4 looks long
/// for room for a file.
fn turns<'a>(
    host: &'a Host,
    who: &'a str,
    command: impl Fn(&Path) -> Command + 'a,
) -> impl FnMut() -> Result<Vec<Figure>> + 'a {
    let mut turn = 0;
    move || {
        turn += 1;
        let to = host.fresh(&format!("unpack-{who}-{turn}"))?.join("image");
        let (cpu, start) = (children_cpu_seconds(std::process::id()), Instant::now());
        output(&mut command(&to))?;
        let taken = start.elapsed().as_secs_f64();
        let cpu = children_cpu_seconds(std::process::id()) - cpu;
        Ok(vec![Figure::new("s", taken), Figure::new("CPU s", cpu)])
    }
}
