//! `/export`: a table of any size, row by row. `/progress`: events while something is done.

use std::{fmt::Write, process::ExitCode, time::Duration};

use handler::{
    Problem, Request, Response, Routes, ServerSentEvent, get, parameters, routes, server_sent_events, stream,
};
use serde::Deserialize;

fn main() -> ExitCode {
    handler::run(endpoint())
}

pub(crate) fn endpoint() -> Routes {
    routes([get(export).at("/export"), get(progress).at("/progress")])
}

#[derive(Deserialize)]
struct Wanted {
    rows: u32,
}

async fn export(request: Request) -> Result<Response, Problem> {
    let Wanted { rows } = parameters(&request)?;
    Ok(stream("text/csv", move |pieces| async move {
        pieces.send("number,square\r\n").await?;
        // A piece is many rows, because each is written on its own.
        for first in (0..rows).step_by(1000) {
            let last = rows.min(first.saturating_add(1000));
            let mut piece = String::new();
            for number in first..last {
                write!(piece, "{number},{}\r\n", u64::from(number).pow(2))?;
            }
            pieces.send(piece).await?;
        }
        Ok(())
    }))
}

async fn progress(request: Request) -> Result<Response, Problem> {
    // A browser that lost the connection says which event it had last.
    let last = request.headers().get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let first = last.map_or(1, |last: u32| last.saturating_add(1));
    Ok(server_sent_events(move |events| async move {
        for done in first..=3 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let (id, data) = (done.to_string(), format!("{done} of 3"));
            events.send(ServerSentEvent { id: &id, name: "done", data: &data }).await?;
        }
        Ok(())
    }))
}
