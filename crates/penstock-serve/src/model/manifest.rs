//! A bundle's manifest and files, checked before anything of them is used.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::error::{Fault, Result};

const FORMAT_VERSION: u64 = 2;
/// Files up to this size are hashed when they are opened; larger ones were on their way into the cache, and check
/// their own blocks as these are touched.
const HASHED_BYTES: u64 = 64 << 20;
const MANIFEST_BYTES: u64 = 64 << 20;
/// What only a later training run reads.
const TRAINING: &str = "training/";

#[derive(Deserialize)]
pub(super) struct Manifest {
    pub algorithm: String,
    #[serde(default)]
    pub signature: Signature,
    /// The plan's fingerprint; empty where there is none.
    #[serde(default)]
    pub plan: String,
    #[serde(default)]
    pub encoder: EncoderSpec,
    pub model: serde_json::Value,
    #[serde(default)]
    files: BTreeMap<String, FileSpec>,
}

#[derive(Default, Deserialize)]
pub(super) struct Signature {
    #[serde(default)]
    pub inputs: Vec<ColumnSpec>,
}

#[derive(Deserialize)]
pub(super) struct ColumnSpec {
    pub name: String,
    #[serde(rename = "type", default)]
    pub kind: String,
}

#[derive(Default, Deserialize)]
pub(super) struct EncoderSpec {
    #[serde(default)]
    pub layout: LayoutSpec,
    #[serde(default)]
    pub widths: Vec<usize>,
    #[serde(default)]
    pub places: usize,
}

#[derive(Default, Deserialize)]
pub(super) struct LayoutSpec {
    #[serde(default)]
    pub numeric: Vec<String>,
    #[serde(default)]
    pub vectors: Vec<String>,
    #[serde(default)]
    pub categorical: Vec<String>,
    /// A column of keys, and of their weights or "".
    #[serde(default)]
    pub slots: Vec<(String, String)>,
    #[serde(default)]
    pub positions: bool,
}

#[derive(Deserialize)]
struct FileSpec {
    size_bytes: u64,
    sha256: String,
}

pub(super) fn broken(folder: &Path, what: impl std::fmt::Display) -> Fault {
    Fault::internal(format!(
        "the model bundle {} cannot be served: {what}",
        folder.display()
    ))
}

impl Manifest {
    /// Reads the manifest and checks every file that it names.
    pub fn read(folder: &Path) -> Result<Manifest> {
        let path = folder.join("manifest.json");
        let size = std::fs::metadata(&path).map_err(|error| broken(folder, error))?;
        if size.len() > MANIFEST_BYTES {
            return Err(broken(folder, "its manifest.json is larger than 64 MB"));
        }
        let bytes = std::fs::read(&path).map_err(|error| broken(folder, error))?;
        let value: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|error| broken(folder, format!("manifest.json: {error}")))?;
        match value.get("format_version").and_then(|v| v.as_u64()) {
            Some(1..=FORMAT_VERSION) => {}
            Some(newer) => {
                let said = format!(
                    "it is of format {newer}, this Penstock reads up to {FORMAT_VERSION}: upgrade the host"
                );
                return Err(broken(folder, said));
            }
            None => return Err(broken(folder, "its manifest.json has no format_version")),
        }
        let manifest: Manifest = serde_json::from_value(value)
            .map_err(|error| broken(folder, format!("manifest.json: {error}")))?;
        manifest.check_files(folder)?;
        Ok(manifest)
    }

    fn check_files(&self, folder: &Path) -> Result<()> {
        for (name, spec) in &self.files {
            if !Path::new(name)
                .components()
                .all(|part| matches!(part, Component::Normal(_)))
            {
                return Err(broken(folder, format!("its manifest names {name}")));
            }
            if name.starts_with(TRAINING) {
                continue;
            }
            let path = folder.join(name);
            let size = std::fs::metadata(&path)
                .map_err(|error| broken(folder, format!("{name}: {error}")))?
                .len();
            if size != spec.size_bytes {
                let said = format!("{name} has {size} bytes, not {}", spec.size_bytes);
                return Err(broken(folder, said));
            }
            if size <= HASHED_BYTES {
                let bytes = std::fs::read(&path)
                    .map_err(|error| broken(folder, format!("{name}: {error}")))?;
                if hex(&bytes) != spec.sha256 {
                    let said = format!("{name} is not the file that was written with it");
                    return Err(broken(folder, said));
                }
            }
        }
        Ok(())
    }

    /// Bytes of the files that are read into memory rather than mapped.
    pub fn held_bytes(&self) -> u64 {
        let held = |name: &&String| !name.starts_with(TRAINING) && !name.ends_with(".snapshot");
        let files = self.files.iter().filter(|(name, _)| held(name));
        files.map(|(_, spec)| spec.size_bytes).sum()
    }

    /// The part under "model" as a form of model declares it.
    pub fn form<T: DeserializeOwned>(&self, folder: &Path) -> Result<T> {
        serde_json::from_value(self.model.clone())
            .map_err(|error| broken(folder, format!("manifest.json: model: {error}")))
    }
}

/// SHA-256 in hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file of the bundle as text.
pub(super) fn text(folder: &Path, name: &str) -> Result<String> {
    std::fs::read_to_string(folder.join(name))
        .map_err(|error| broken(folder, format!("{name}: {error}")))
}
