//! Any body: the webhook answers with an AdmissionReview that the API server takes, or with a clean refusal.
#![no_main]

use std::cell::LazyCell;

use libfuzzer_sys::fuzz_target;

#[path = "../../operator/controller/tests/admission/endpoint.rs"]
mod endpoint;

thread_local! {
    static ENDPOINT: LazyCell<endpoint::Endpoint> = LazyCell::new(endpoint::Endpoint::new);
}

fuzz_target!(|body: &[u8]| {
    ENDPOINT.with(|endpoint| endpoint.check(body));
});
