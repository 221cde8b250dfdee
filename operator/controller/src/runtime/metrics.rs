//! What is counted, in OpenMetrics text.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Pass {
    controller: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Controller {
    controller: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answer {
    answer: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Write {
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Pool {
    pool: String,
}

/// Whether the webhook answers. There is no value while nobody tries it.
#[derive(Clone, Debug, Default)]
struct Answers(Arc<Mutex<Option<bool>>>);

impl Collector for Answers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(answers) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) else {
            return Ok(());
        };
        let gauge = ConstGauge::new(i64::from(answers));
        let help = "1 when the last of these came back mutated and nothing has changed since; absent while none is asked for.";
        let encoder = encoder.encode_descriptor("webhook_answers", help, None, gauge.metric_type())?;
        gauge.encode(encoder)
    }
}

/// All metrics of the process. Clones count into the same registry.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    reconciles: Family<Pass, Counter>,
    durations: Family<Controller, Histogram, fn() -> Histogram>,
    evictions: Family<Answer, Counter>,
    forced: Family<Answer, Counter>,
    writes: Family<Write, Counter>,
    races: Counter,
    leader: Gauge,
    pods_left: Family<Pool, Gauge>,
    pods_blocked: Family<Pool, Gauge>,
    watch_errors: Family<Kind, Counter>,
    unreadable: Family<Kind, Gauge>,
    admissions: Family<Admission, Counter>,
    left_alone: Family<LeftAlone, Counter>,
    admission_durations: Histogram,
    certificate_expiry: Gauge,
    probes: Family<Admission, Counter>,
    answers: Answers,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LeftAlone {
    pool: String,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Admission {
    result: &'static str,
}

/// The API server waits for the webhook for two seconds; the target is 5 ms.
const ADMISSIONS: [f64; 10] = [0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1.0, 2.0];

/// A pass takes microseconds when nothing is to be done and seconds when the API server is slow.
const DURATIONS: [f64; 9] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("virtualnodepool");
        let reconciles = Family::default();
        let durations: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(DURATIONS));
        let evictions = Family::default();
        let forced = Family::default();
        let writes = Family::default();
        let races = Counter::default();
        let leader: Gauge = Gauge::default();
        let pods_left: Family<Pool, Gauge> = Family::default();
        let pods_blocked: Family<Pool, Gauge> = Family::default();
        let watch_errors = Family::default();
        let unreadable: Family<Kind, Gauge> = Family::default();
        let admissions = Family::default();
        let left_alone = Family::default();
        let admission_durations = Histogram::new(ADMISSIONS);
        let certificate_expiry: Gauge = Gauge::default();
        let probes = Family::default();
        let answers = Answers::default();
        registry.register("reconciles", "Passes of a loop", Family::clone(&reconciles));
        registry.register(
            "reconcile_duration_seconds",
            "Duration of a pass",
            Family::clone(&durations),
        );
        registry.register(
            "evictions",
            "Answers of the Eviction API",
            Family::clone(&evictions),
        );
        registry.register(
            "forced_deletions",
            "Answers to deletions past a drain's deadline",
            Family::clone(&forced),
        );
        registry.register("api_writes", "Writes to the API server", Family::clone(&writes));
        registry.register(
            "races_lost",
            "Pods found on an ordinal that had been removed",
            races.clone(),
        );
        registry.register("leader", "1 while this process leads", leader.clone());
        registry.register(
            "drain_pods_left",
            "Pods left on draining nodes",
            pods_left.clone(),
        );
        registry.register(
            "drain_pods_blocked",
            "Pods on draining nodes that something blocks",
            pods_blocked.clone(),
        );
        registry.register(
            "watch_errors",
            "Failed lists and watches",
            Family::clone(&watch_errors),
        );
        registry.register(
            "unreadable_objects",
            "Objects that do not fit their type, each taken for the worst that it may be",
            Family::clone(&unreadable),
        );
        registry.register(
            "webhook_requests",
            "Pods that the API server asked about",
            Family::clone(&admissions),
        );
        registry.register(
            "webhook_left_alone",
            "Pods that a rule or a label selects and that no virtual node can run",
            Family::clone(&left_alone),
        );
        registry.register(
            "webhook_duration_seconds",
            "From the head of a request to its answer",
            admission_durations.clone(),
        );
        registry.register(
            "webhook_certificate_expiry_timestamp_seconds",
            "End of the certificate that the webhook serves, in seconds since 1970; 0 without one",
            certificate_expiry.clone(),
        );
        registry.register(
            "webhook_probes",
            "Pods created as a dry run to try the webhook, by the leader",
            Family::clone(&probes),
        );
        registry.register_collector(Box::new(answers.clone()));
        Self(Arc::new(Inner {
            registry,
            reconciles,
            durations,
            evictions,
            forced,
            writes,
            races,
            leader,
            pods_left,
            pods_blocked,
            watch_errors,
            unreadable,
            admissions,
            left_alone,
            admission_durations,
            certificate_expiry,
            probes,
            answers,
        }))
    }
}

impl Metrics {
    /// Counts a pod that was left alone.
    pub fn left_alone(&self, pool: &str, reason: &'static str) {
        let pool = pool.to_owned();
        self.0.left_alone.get_or_create(&LeftAlone { pool, reason }).inc();
    }

    /// Counts a pass of a loop.
    pub fn reconciled(&self, controller: &'static str, result: &'static str, seconds: f64) {
        self.0
            .reconciles
            .get_or_create(&Pass { controller, result })
            .inc();
        self.0
            .durations
            .get_or_create(&Controller { controller })
            .observe(seconds);
    }

    /// Counts an answer of the Eviction API.
    pub fn evicted(&self, answer: &'static str) {
        self.0.evictions.get_or_create(&Answer { answer }).inc();
    }

    /// Counts an answer to a forced deletion, by the words of [`Metrics::evicted`].
    pub fn force_deleted(&self, answer: &'static str) {
        self.0.forced.get_or_create(&Answer { answer }).inc();
    }

    /// Counts a write to the API server: `kind` is what was written, `result` is `ok` or the kind of failure.
    pub fn wrote(&self, kind: &'static str, result: &'static str) {
        self.0.writes.get_or_create(&Write { kind, result }).inc();
    }

    /// Counts a lost race: a pod on an ordinal that had been removed.
    pub fn race_lost(&self) {
        self.0.races.inc();
    }

    /// Says whether this process leads.
    pub fn leads(&self, leads: bool) {
        self.0.leader.set(i64::from(leads));
    }

    /// Says how far the drain of a pool is; (0, 0) when nothing drains.
    pub fn drain(&self, pool: &str, left: i64, blocked: i64) {
        let pool = Pool {
            pool: pool.to_owned(),
        };
        self.0.pods_left.get_or_create(&pool).set(left);
        self.0.pods_blocked.get_or_create(&pool).set(blocked);
    }

    /// Forgets a pool that is gone.
    pub fn forget(&self, pool: &str) {
        let pool = Pool {
            pool: pool.to_owned(),
        };
        self.0.pods_left.remove(&pool);
        self.0.pods_blocked.remove(&pool);
    }

    /// Counts a failed list or watch.
    pub fn watch_failed(&self, kind: &'static str) {
        self.0.watch_errors.get_or_create(&Kind { kind }).inc();
    }

    /// So many objects more can't be read, or less.
    pub fn unreadable(&self, kind: &'static str, more: i64) {
        self.0.unreadable.get_or_create(&Kind { kind }).inc_by(more);
    }

    /// Counts an answer of the webhook: `mutated`, `unchanged`, `unreadable` (allowed as it was) or `refused` (no answer
    /// but an HTTP error).
    pub fn admitted(&self, result: &'static str, seconds: f64) {
        self.0.admissions.get_or_create(&Admission { result }).inc();
        self.0.admission_durations.observe(seconds);
    }

    /// Says when the certificate of the webhook ends.
    pub fn certificate_ends(&self, end: Option<jiff::Timestamp>) {
        self.0
            .certificate_expiry
            .set(end.map_or(0, jiff::Timestamp::as_second));
    }

    /// Counts a dry run: `mutated` or `failed`.
    pub fn probed(&self, result: &'static str) {
        self.0.probes.get_or_create(&Admission { result }).inc();
    }

    /// Says whether the webhook answers; `None` when nobody asks.
    pub fn webhook_answers(&self, answers: Option<bool>) {
        let told = &self.0.answers.0;
        *told.lock().unwrap_or_else(PoisonError::into_inner) = answers;
    }

    /// All of it as text.
    ///
    /// # Errors
    /// When the text can't be formatted.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.0.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_count_into_one_registry() {
        let metrics = Metrics::default();
        metrics.clone().evicted("accepted");
        metrics.evicted("accepted");
        metrics.reconciled("pool", "ok", 0.01);
        metrics.drain("burst", 7, 2);
        let text = metrics.render().unwrap();
        assert!(
            text.contains("virtualnodepool_evictions_total{answer=\"accepted\"} 2"),
            "{text}"
        );
        assert!(
            text.contains("virtualnodepool_reconciles_total{controller=\"pool\",result=\"ok\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("virtualnodepool_drain_pods_left{pool=\"burst\"} 7"),
            "{text}"
        );
        for (answers, value) in [(Some(true), Some("1")), (Some(false), Some("0")), (None, None)] {
            metrics.webhook_answers(answers);
            let text = metrics.render().unwrap();
            let mut lines = text.lines();
            let told = lines.find_map(|line| line.strip_prefix("virtualnodepool_webhook_answers "));
            assert_eq!(told, value, "{text}");
        }
        metrics.forget("burst");
        assert!(!metrics.render().unwrap().contains("pool=\"burst\""));
    }
}
