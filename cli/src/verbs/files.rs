//! Manifests from files, folders and standard input.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize as _;
use serde_json::Value;

/// Where manifests come from.
#[derive(Args, Clone, Debug)]
pub(crate) struct Files {
    /// A file or folder of manifests; `-` is standard input. Can be given more than once.
    #[arg(long = "filename", short = 'f', value_name = "FILE")]
    pub(crate) filename: Vec<PathBuf>,
    /// Look into folders of folders too.
    #[arg(long, short = 'R')]
    recursive: bool,
}

/// The most bytes of one manifest: what an API server takes in a request, with room for comments.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

impl Files {
    /// Every object, with the file it stands in; lists are taken apart.
    pub(crate) fn objects(&self) -> Result<Vec<(String, Value)>> {
        let mut objects = Vec::new();
        for path in &self.filename {
            for file in self.walk(path)? {
                let shown = file.display().to_string();
                let text = read(&file).with_context(|| format!("error reading {shown}"))?;
                for object in documents(&text).with_context(|| format!("error parsing {shown}"))? {
                    flatten(object, &shown, &mut objects)?;
                }
            }
        }
        if objects.is_empty() {
            bail!("no objects passed; name files with -f");
        }
        Ok(objects)
    }

    fn walk(&self, path: &Path) -> Result<Vec<PathBuf>> {
        if path == Path::new("-") || !path.is_dir() {
            return Ok(vec![path.into()]);
        }
        let entries =
            std::fs::read_dir(path).with_context(|| format!("the path {:?} cannot be accessed", path.display()))?;
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        let mut files = Vec::new();
        for path in paths {
            let known = path.extension().and_then(|e| e.to_str()).is_some_and(|e| matches!(e, "json" | "yaml" | "yml"));
            if path.is_dir() && self.recursive {
                files.extend(self.walk(&path)?);
            } else if path.is_file() && known {
                files.push(path);
            }
        }
        Ok(files)
    }
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text)?;
    } else {
        std::fs::File::open(path)?.take(MAX_BYTES).read_to_string(&mut text)?;
    }
    Ok(text)
}

/// The documents of a YAML or JSON text; empty ones are left out.
fn documents(text: &str) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = Value::deserialize(document)?;
        if !value.is_null() {
            all.push(value);
        }
    }
    Ok(all)
}

fn flatten(object: Value, file: &str, out: &mut Vec<(String, Value)>) -> Result<()> {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    if kind.is_empty() {
        bail!("Object 'Kind' is missing in {file}");
    }
    match object.get("items").and_then(Value::as_array) {
        Some(items) if kind.ends_with("List") => items.iter().try_for_each(|item| flatten(item.clone(), file, out)),
        _ => {
            out.push((file.into(), object));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{documents, flatten};

    #[test]
    fn manifests_are_taken_apart() {
        let text = "kind: A\n---\n---\n# nothing\n---\nkind: List\nitems:\n- kind: B\n- {\"kind\": \"C\"}\n";
        let mut objects = Vec::new();
        for document in documents(text).unwrap_or_default() {
            assert!(flatten(document, "f", &mut objects).is_ok());
        }
        let kinds: Vec<String> = objects.iter().map(|(_, o)| o["kind"].to_string()).collect();
        assert_eq!(kinds, ["\"A\"", "\"B\"", "\"C\""]);
        assert!(flatten(serde_json::json!({"a": 1}), "f", &mut objects).is_err());
    }
}
