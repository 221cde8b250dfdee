//! The CustomResourceDefinition.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::VirtualNodePool;

/// The definition could not be built from the types; a defect of this crate, found by its tests.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// The adjusted JSON is no CustomResourceDefinition any more.
    #[error("the adjusted definition does not parse: {0}")]
    Json(#[from] serde_json::Error),
}

/// The CustomResourceDefinition of `VirtualNodePool`.
///
/// # Errors
/// [`DefinitionError`] when the types yield something that can't be adjusted.
pub fn definition() -> Result<CustomResourceDefinition, DefinitionError> {
    Ok(VirtualNodePool::crd())
}
