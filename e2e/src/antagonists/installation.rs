//! The operator once more, from another namespace.

use anyhow::Result;

use super::place::Place;
use super::{Antagonist, Deeds};
use crate::environment::Environment;
use crate::operator::{Operator, OperatorOptions};
use crate::scenario::manifests;

/// A second installation, with a Lease of its own. It takes every pool for its own.
pub const SECOND_INSTALLATION: Antagonist = Antagonist {
    name: "second-installation",
    evidence: "second installation",
    deeds: Deeds::Operator,
};

pub(super) async fn start(environment: &Environment, place: &Place) -> Result<Operator> {
    place.apply(&manifests::namespace(place.name)).await?;
    let mut options = OperatorOptions::default();
    let own = [
        ("KUBECONFIG", place.kubeconfig.display().to_string()),
        ("POD_NAMESPACE", place.name.to_owned()),
    ];
    options
        .env
        .extend(own.map(|(key, value)| (key.to_owned(), value)));
    let mut operator = Operator::start(environment, &options).await?;
    operator.ready().await?;
    Ok(operator)
}
