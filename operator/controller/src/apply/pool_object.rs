//! The pool's finalizer. The patch tests UID and resourceVersion, so that the list of finalizers is the one that was
//! read and no other finalizer is lost.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, TestOperation};
use serde_json::{Value, json};
use vnp_crds::VirtualNodePool;

use super::PoolRef;
use super::error::ApplyError;
use super::write::{Place, Writer};

fn test(path: [&str; 2], value: Value) -> PatchOperation {
    PatchOperation::Test(TestOperation {
        path: PointerBuf::from_tokens(path),
        value,
    })
}

async fn write(writer: &Writer, pool: &PoolRef, change: PatchOperation) -> Result<(), ApplyError> {
    let patch = Patch(vec![
        test(["metadata", "uid"], json!(pool.uid)),
        test(["metadata", "resourceVersion"], json!(pool.resource_version)),
        change,
    ]);
    let place = Place::cluster::<VirtualNodePool>("virtualnodepools.virtualnodes.dev");
    writer.json_patch(&place, &pool.name, &patch).await
}

pub(super) async fn add_finalizer(writer: &Writer, pool: &PoolRef) -> Result<(), ApplyError> {
    let finalizers: Vec<&str> = pool
        .finalizers
        .iter()
        .map(String::as_str)
        .chain([vnp_crds::FINALIZER])
        .collect();
    let path = PointerBuf::from_tokens(["metadata", "finalizers"]);
    write(
        writer,
        pool,
        PatchOperation::Add(AddOperation {
            path,
            value: json!(finalizers),
        }),
    )
    .await
}

/// A finalizer that is off already needs no write.
pub(super) async fn remove_finalizer(writer: &Writer, pool: &PoolRef) -> Result<(), ApplyError> {
    let Some(index) = pool.finalizers.iter().position(|f| f == vnp_crds::FINALIZER) else {
        return Ok(());
    };
    let path = PointerBuf::from_tokens(["metadata", "finalizers", &index.to_string()]);
    write(writer, pool, PatchOperation::Remove(RemoveOperation { path })).await
}
