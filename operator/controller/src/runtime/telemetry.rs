//! Logs on standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FromEnvError, LevelFilter};
use tracing_subscriber::util::TryInitError;
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

use super::args::LogFormat;

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// RUST_LOG is not a filter.
    #[error("RUST_LOG can't be read; write for instance RUST_LOG=info or RUST_LOG=vnp_operator=debug")]
    Filter(#[from] FromEnvError),
    /// There is a subscriber already.
    #[error("the log can't be set up")]
    Init(#[from] TryInitError),
}

/// Starts logging for the whole process.
///
/// # Errors
/// [`TelemetryError`] when RUST_LOG is malformed or logging was started before.
pub fn init(format: LogFormat) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env()?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => registry.with(lines).try_init()?,
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init()?,
    }
    Ok(())
}
