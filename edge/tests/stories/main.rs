//! What an edge does between an origin and its viewers, over real sockets: an origin made of a counter, viewers made of
//! single requests.

mod bent;
mod checked;
mod coalesce;
mod cut;
mod directory;
mod ending;
mod fleet;
mod foreign;
mod forms;
mod h3;
mod hostile;
mod hostile_upstream;
mod limits;
mod line;
mod mixed;
mod origin;
mod outage;
mod parents;
mod poison;
mod relay;
mod reload;
mod routes;
mod signed;
mod site;
mod tampered;
mod tls;
mod unknown;
mod viewers;
