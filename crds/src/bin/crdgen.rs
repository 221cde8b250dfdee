//! Prints the CustomResourceDefinition as YAML; `config/crd` keeps the result.

use std::{
    error::Error,
    io::{Write, stdout},
};

fn main() -> Result<(), Box<dyn Error>> {
    stdout().write_all(vnp_crds::definition_yaml()?.as_bytes())?;
    Ok(())
}
