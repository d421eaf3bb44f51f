//! What sessions promise, told as short stories: who says what, what happens meanwhile, what is heard.

mod floods;
mod joining;
mod lives;
mod panics;
mod world;
