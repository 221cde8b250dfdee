//! Child processes that can't outlive this one, whatever ends it.

use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// Reads until the other end of its standard input is closed, which the kernel does however we end, SIGKILL
/// included. Then kills the process group `$1` and removes the folder `$2`.
const SUPERVISOR: &str = r#"
cat > /dev/null
kill -s KILL -- "-$1"
rm -rf "$2" 2> /dev/null || { sleep 1; rm -rf "$2"; }
"#;

/// A process group of our children, with a supervisor outside of it that kills it when this process ends or the
/// value is dropped.
///
/// The group is not the terminal's: Ctrl-C reaches the test process alone, and the group goes after it.
#[derive(Debug)]
pub struct ProcessGroup {
    anchor: Child,
    supervisor: Child,
}

impl ProcessGroup {
    /// Starts an empty group. `scratch` is removed when the group ends.
    ///
    /// # Errors
    /// When `cat` or `sh` can't be started.
    pub fn start(scratch: &Path) -> Result<Self> {
        // Holds the group's id open; ends by itself when we are killed before the supervisor is there.
        let anchor = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start the anchor of the process group")?;
        let supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR, "supervisor"])
            .arg(anchor.id().to_string())
            .arg(scratch)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start the supervisor of the process group")?;
        Ok(Self { anchor, supervisor })
    }

    /// Starts `command` in the group, with both outputs appended to `log`.
    ///
    /// # Errors
    /// When the log can't be opened or the process not be started.
    pub fn spawn(&self, name: &str, mut command: Command, log: &Path) -> Result<Component> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(i32::try_from(self.anchor.id())?)
            .spawn()
            .with_context(|| format!("start {:?}", command.get_program()))?;
        Ok(Component {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        for child in [&mut self.supervisor, &mut self.anchor] {
            if let Err(error) = child.wait() {
                tracing::warn!("process {} was not reaped: {error}", child.id());
            }
        }
    }
}

/// Starts processes in a group without keeping the group alive.
#[derive(Clone, Debug)]
pub struct Launcher {
    group: Weak<ProcessGroup>,
    logs: PathBuf,
}

impl Launcher {
    pub(super) fn new(group: &Arc<ProcessGroup>, logs: &Path) -> Self {
        Self {
            group: Arc::downgrade(group),
            logs: logs.to_owned(),
        }
    }

    /// Starts `command`, with its output in `<name>.log`.
    ///
    /// # Errors
    /// When the log or the process can't be started, or the group has ended.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Component> {
        let group = self.group.upgrade().context("the control plane has ended")?;
        group.spawn(name, command, &self.logs.join(format!("{name}.log")))
    }
}

/// One process of a [`ProcessGroup`]. Dropping it kills it.
#[derive(Debug)]
pub struct Component {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Component {
    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its exit status, once it has ended.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Fails with the end of its log when it has ended.
    ///
    /// # Errors
    /// When it has ended.
    pub fn ensure_running(&mut self) -> Result<()> {
        let Some(status) = self.exit_status()? else {
            return Ok(());
        };
        let how = status
            .signal()
            .map_or_else(|| status.to_string(), |signal| format!("signal {signal}"));
        bail!(
            "{} ended by itself ({how}); the end of {}:\n{}",
            self.name,
            self.log.display(),
            log_tail(&self.log, 15)
        )
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has not ended after `within`.
    pub async fn ended(&mut self, within: Duration) -> Result<ExitStatus> {
        let asked = Instant::now();
        loop {
            if let Some(status) = self.exit_status()? {
                return Ok(status);
            }
            ensure!(
                asked.elapsed() < within,
                "{} did not end within {within:?}",
                self.name
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a signal; nothing happens when the process has ended.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.exit_status()?.is_none() {
            kill_process(Pid::from_child(&self.child), signal)
                .with_context(|| format!("send {signal:?} to {}", self.name))?;
        }
        Ok(())
    }

    /// SIGSTOP, and returns when it has stopped: no instruction of it runs any more.
    ///
    /// # Errors
    /// When it has ended, or has not stopped within a second.
    pub fn stop(&mut self) -> Result<()> {
        self.ensure_running()?;
        self.signal(Signal::STOP)?;
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let asked = Instant::now();
        while waitid(WaitId::Pid(Pid::from_child(&self.child)), stopped)?.is_none() {
            ensure!(
                asked.elapsed() < Duration::from_secs(1),
                "{} did not stop within a second",
                self.name
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        // SIGKILL ends a stopped process too.
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            tracing::warn!("{} was not ended: {error}", self.name);
        }
    }
}

/// The last lines of a log file, or why it can't be read.
#[must_use]
pub fn log_tail(log: &Path, lines: usize) -> String {
    match std::fs::read(log) {
        Ok(content) => {
            let content = String::from_utf8_lossy(&content);
            let all: Vec<&str> = content.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("(no log: {error})"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    fn alive(pid: u32) -> bool {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // A process that was killed but not yet reaped by whoever inherited it counts as ended.
        !state.is_empty() && !state.contains(") Z ")
    }

    fn ends_soon(pid: u32) -> bool {
        let deadline = Instant::now() + Duration::from_secs(5);
        while alive(pid) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        !alive(pid)
    }

    fn sleeper() -> Command {
        let mut command = Command::new("sleep");
        command.arg("600");
        command
    }

    #[test]
    fn dropping_the_group_ends_its_processes_and_removes_the_scratch_folder() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = folder.path().join("scratch");
        std::fs::create_dir(&scratch).unwrap();
        let group = ProcessGroup::start(&scratch).unwrap();
        let sleeper = group
            .spawn("sleeper", sleeper(), &folder.path().join("log"))
            .unwrap();
        assert!(alive(sleeper.pid()));
        drop(group);
        assert!(ends_soon(sleeper.pid()));
        assert!(!scratch.exists());
    }

    /// The test runs itself again as the process that gets killed; there it only starts a group and waits.
    #[test]
    fn a_killed_process_takes_its_group_with_it() {
        const INNER: &str = "VNP_E2E_GROUP_TO_KILL";
        if let Ok(folder) = std::env::var(INNER) {
            let folder = PathBuf::from(folder);
            let group = ProcessGroup::start(&folder.join("scratch")).unwrap();
            let stopped = group.spawn("sleeper", sleeper(), &folder.join("log")).unwrap();
            kill_process(Pid::from_child(&stopped.child), Signal::STOP).unwrap();
            println!("sleeper {}", stopped.pid());
            std::thread::sleep(Duration::from_secs(600));
        }
        let folder = tempfile::tempdir().unwrap();
        let mut inner = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "control_plane::process::tests::a_killed_process_takes_its_group_with_it",
            ])
            .env(INNER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = BufReader::new(inner.stdout.take().unwrap())
            .lines()
            .map_while(std::io::Result::ok)
            .find_map(|line| {
                line.split("sleeper ")
                    .nth(1)
                    .and_then(|pid| pid.trim().parse().ok())
            })
            .unwrap();
        assert!(alive(pid));
        inner.kill().unwrap();
        inner.wait().unwrap();
        assert!(
            ends_soon(pid),
            "process {pid} outlived the process that started it"
        );
    }

    #[test]
    fn a_stopped_process_stays_stopped_until_it_may_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let group = ProcessGroup::start(&folder.path().join("scratch")).unwrap();
        let mut busy = Command::new("sh");
        busy.args(["-c", "while :; do :; done"]);
        let mut component = group.spawn("busy", busy, &folder.path().join("log")).unwrap();
        let state = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        component.stop().unwrap();
        assert!(state(component.pid()).contains(") T "));
        component.signal(Signal::CONT).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while !state(component.pid()).contains(") R ") {
            assert!(Instant::now() < deadline, "it does not go on");
        }
    }

    #[test]
    fn an_early_end_is_told_with_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let group = ProcessGroup::start(&folder.path().join("scratch")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo the port is taken; exit 3"]);
        let mut component = group.spawn("etcd", command, &folder.path().join("log")).unwrap();
        component.child.wait().unwrap();
        let message = component.ensure_running().unwrap_err().to_string();
        assert!(message.contains("etcd ended by itself"), "{message}");
        assert!(message.contains("the port is taken"), "{message}");
    }
}
