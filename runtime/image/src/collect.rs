//! Collection: what no image needs and nobody is bringing in is removed. Marked from the index, from what pulls and pushes
//! under way hold, and from what the caller says is in use; swept by name.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::ingest::{HELD, is_held};
use crate::store::{Index, Store, entries};
use crate::{Result, partial, tree};

impl Store {
    /// Forgets images without a name whose ids are not `in_use`, and removes every blob and layer that no other needs, and
    /// blobs that came in part and are not being fetched. Returns the bytes freed.
    pub fn collect(&self, in_use: &[String]) -> Result<u64> {
        let _lock = self.lock()?;
        let mut index = self.read_index()?;
        index
            .images
            .retain(|id, record| !record.names.is_empty() || record.pinned || in_use.iter().any(|used| used == id));
        let Some(keep) = self.marked(&index)? else { return Ok(0) };
        self.write_index(&index)?;
        Ok(self.sweep(&keep)? + partial::clear(&self.partials(), None)?)
    }

    /// Removes what no image in the index needs: what a pull brought that came to nothing.
    pub(crate) fn sweep_unused(&self) -> Result<u64> {
        let _lock = self.lock()?;
        let index = self.read_index()?;
        self.marked(&index)?.map_or(Ok(0), |keep| self.sweep(&keep))
    }

    /// The digests and ChainIDs to keep. `None` where somebody brings in what cannot be told yet.
    fn marked(&self, index: &Index) -> Result<Option<BTreeSet<String>>> {
        let mut keep = BTreeSet::new();
        for ingest in entries(&self.ingests())? {
            if !is_held(&ingest)? {
                continue;
            }
            let Ok(held) = fs::read_to_string(ingest.join(HELD)) else { return Ok(None) };
            keep.extend(held.lines().map(str::to_owned));
        }
        for (id, record) in &index.images {
            keep.extend([id.clone(), record.manifest.clone()]);
            keep.extend(record.chain.iter().cloned());
            keep.extend(record.referrers.iter().cloned());
            // What a document names is of no use without it.
            for digest in record.referrers.iter().chain([&record.manifest]).filter(|digest| self.has_blob(digest)) {
                let (document, _) = self.document(digest)?;
                keep.extend(document.blobs().map(|blob| blob.digest.clone()));
            }
        }
        Ok(Some(keep))
    }

    fn sweep(&self, keep: &BTreeSet<String>) -> Result<u64> {
        Ok(sweep(&self.blobs(), keep)? + sweep(&self.layers(), keep)?)
    }
}

fn sweep(dir: &Path, keep: &BTreeSet<String>) -> Result<u64> {
    let mut freed = 0;
    for path in entries(dir)? {
        let name = path.file_name().map(|n| format!("sha256:{}", n.to_string_lossy())).unwrap_or_default();
        if !keep.contains(&name) {
            freed += tree::remove(&path)?;
        }
    }
    Ok(freed)
}
