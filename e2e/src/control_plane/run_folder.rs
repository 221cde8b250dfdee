//! One folder per run, kept for whoever wants to know why a test failed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

const RUNS_KEPT: usize = 20;
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// `<target>/e2e/<test binary>-<time>-<pid>`, with a `scratch` folder in it that goes when the run ends.
#[derive(Debug)]
pub(super) struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    pub(super) fn create() -> Result<Self> {
        let executable = std::env::current_exe()?;
        let runs = target_folder(&executable).join("e2e");
        prune(&runs);
        let name = executable
            .file_stem()
            .map_or_else(|| "run".into(), |stem| stem.to_string_lossy());
        // Cargo appends a hash to the names of test binaries.
        let name = name
            .rsplit_once('-')
            .filter(|(_, hash)| hash.len() == 16)
            .map_or(&*name, |(name, _)| name);
        let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%.3f");
        let path = runs.join(format!("{name}-{time}-{}", std::process::id()));
        let folder = Self { path };
        fs::create_dir_all(folder.scratch()).with_context(|| format!("create {}", folder.path.display()))?;
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn scratch(&self) -> PathBuf {
        self.path.join("scratch")
    }
}

/// Cargo marks its target folder; a binary from elsewhere leaves its runs in the temporary folder.
fn target_folder(executable: &Path) -> PathBuf {
    executable
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file())
        .map_or_else(|| std::env::temp_dir().join("virtualnodepool"), Path::to_owned)
}

/// Removes all but the newest finished runs, and runs whose end nobody saw. Best effort: another test binary may do
/// the same at the same time.
fn prune(runs: &Path) {
    let Ok(entries) = fs::read_dir(runs) else { return };
    let mut old: Vec<(SystemTime, PathBuf)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let modified = entry.metadata().ok()?.modified().ok()?;
            let running = entry.path().join("scratch").exists();
            let abandoned = modified.elapsed().is_ok_and(|age| age > ABANDONED_AFTER);
            (!running || abandoned).then(|| (modified, entry.path()))
        })
        .collect();
    old.sort();
    let excess = old.len().saturating_sub(RUNS_KEPT);
    for (_, path) in old.drain(..excess) {
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::debug!("{} stays: {error}", path.display());
        }
    }
}
