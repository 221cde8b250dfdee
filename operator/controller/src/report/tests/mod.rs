//! What others make of our status, and what holds for any of it.

mod answers;
mod bounds;
mod events;
mod facts;
mod judges;
mod kstatus;
mod life;
mod objects;
mod properties;
mod shape;
mod truth;
mod turns;
mod words;
mod writes;
