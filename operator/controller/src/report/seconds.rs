//! Times as the API keeps them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Cut to whole seconds, as `metav1.Time` is on the wire. Otherwise a status read back would never equal the one built,
/// and would be written again for ever.
pub(super) fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The same as an API value.
pub(super) fn api_time(time: Timestamp) -> Time {
    Time(whole(time))
}
