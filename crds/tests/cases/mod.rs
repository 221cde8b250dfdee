//! The cases that say what the schema accepts and what it refuses, told in YAML, so that the same ones run in process and
//! against a real API server.

pub(crate) mod bounds;

use std::{fs, path::Path};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// One case: a pool that is created and then updated, step by step.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// What it is about, unique.
    pub(crate) name: String,
    /// The states to apply; what is refused leaves the state before.
    pub(crate) steps: Vec<Step>,
}

/// One write of the whole pool.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// The pool as written.
    pub(crate) pool: Value,
    /// What the refusal must say; empty when the write is accepted.
    pub(crate) refused: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    name: String,
    /// File in `base/` that the steps change.
    #[serde(default = "create")]
    base: String,
    #[serde(default)]
    steps: Vec<StepFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepFile {
    /// Merge patch (RFC 7386) on the base.
    pool: Value,
    #[serde(default)]
    refused: Vec<String>,
}

fn create() -> String {
    "create".into()
}

/// The name that stands for any name: whoever runs the cases against a server replaces it.
pub(crate) const ANY_NAME: &str = "case";

/// All cases: those of the YAML files, and those derived from the bounds of `schema`.
pub(crate) fn all(schema: &Value) -> Vec<Case> {
    let mut cases = written();
    cases.extend(bounds::cases(schema, &base("everything")));
    cases
}

/// The cases of the YAML files.
pub(crate) fn written() -> Vec<Case> {
    let mut files: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
        .iter()
        .flat_map(|file| read::<Vec<CaseFile>>(file))
        .map(Case::from)
        .collect()
}

/// A pool of the folder `base`.
pub(crate) fn base(name: &str) -> Value {
    read(&folder().join("base").join(format!("{name}.yaml")))
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/tests/cases"))
}

fn read<T: DeserializeOwned>(file: &Path) -> T {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

impl From<CaseFile> for Case {
    fn from(file: CaseFile) -> Self {
        let base = base(&file.base);
        let unchanged = StepFile {
            pool: json!({}),
            refused: Vec::new(),
        };
        let steps = if file.steps.is_empty() {
            vec![unchanged]
        } else {
            file.steps
        };
        let write = |step: StepFile| {
            let mut pool = base.clone();
            json_patch::merge(&mut pool, &step.pool);
            Step {
                pool,
                refused: step.refused,
            }
        };
        Self {
            name: file.name,
            steps: steps.into_iter().map(write).collect(),
        }
    }
}
