//! Where the binaries come from: the script beside this crate, which builds them once for all clones.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

const BUILD_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/control-plane/build.sh");

/// The folder with etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kubectl.
#[derive(Clone, Debug)]
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// Builds what is missing, with its progress on standard error.
    ///
    /// # Errors
    /// When the build fails.
    pub fn find() -> Result<Self> {
        Ok(Self {
            folder: run_build_script(&[])?,
        })
    }

    /// Path of one binary.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder, to be put into PATH.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The real virtual-kubelet with its mock provider, built when it is missing.
///
/// # Errors
/// When the build fails.
pub fn virtual_kubelet_binary() -> Result<PathBuf> {
    Ok(run_build_script(&["--with-virtual-kubelet"])?.join("virtual-kubelet"))
}

fn run_build_script(args: &[&str]) -> Result<PathBuf> {
    let output = Command::new(BUILD_SCRIPT)
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("start {BUILD_SCRIPT}"))?;
    ensure!(
        output.status.success(),
        "{BUILD_SCRIPT} {args:?}: {}; its messages are above",
        output.status
    );
    let stdout = String::from_utf8(output.stdout)?;
    let folder = stdout
        .lines()
        .last()
        .with_context(|| format!("{BUILD_SCRIPT} named no folder"))?;
    Ok(PathBuf::from(folder))
}
