//! What others make of our status, and what holds for any of it.

mod answers;
mod bounds;
mod events;
mod judges;
mod kstatus;
mod properties;
mod shape;
mod words;
mod writes;
