//! How nodes leave, on real nodes with the agent as it ships: who may ask for it, what may go wrong
//! meanwhile, and what is promised all the same. Evidence is what the nodes wrote.

mod blind;
mod deadline;
mod hooks;
mod interruption;
mod killed;
mod operator;
mod shutdown;
mod trouble;
mod warm;
