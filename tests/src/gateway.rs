//! The gateway without an SDK: what is asked again and again must not cost a program each time.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::Sandbox;

impl Sandbox {
    /// A request to an AWS service, by a caller who may do everything; status line, headers and body of
    /// the reply.
    ///
    /// # Errors
    /// When the gateway does not answer.
    pub fn raw(&self, service: &str, line: (&str, &str), body: &str) -> Result<String> {
        self.send(service, line, "application/x-www-form-urlencoded", body)
    }

    /// What a query to EC2, IAM or Auto Scaling answers, `Action=...&Version=...`.
    ///
    /// # Errors
    /// When the gateway does not answer.
    pub fn query(&self, service: &str, form: &str) -> Result<String> {
        body_of(self.raw(service, ("POST", "/"), form)?)
    }

    /// What a call of a JSON service answers, by its target.
    ///
    /// # Errors
    /// When the gateway does not answer.
    pub fn json(&self, service: &str, target: &str, parameters: &Value) -> Result<String> {
        let kind = format!("application/x-amz-json-1.1\r\nX-Amz-Target: {target}");
        body_of(self.send(service, ("POST", "/"), &kind, &parameters.to_string())?)
    }

    /// GET of the sandbox's own API, or POST of what it takes.
    ///
    /// # Errors
    /// When it refuses.
    pub fn admin(&self, path: &str, body: Option<&Value>) -> Result<Value> {
        let path = format!("/_sandbox/{path}");
        let method = if body.is_some() { "POST" } else { "GET" };
        let text = body.map_or_else(String::new, Value::to_string);
        let reply = self.send("sandbox", (method, &path), "application/json", &text)?;
        ensure!(reply.starts_with("HTTP/1.1 200"), "{path}: {reply}");
        Ok(serde_json::from_str(&body_of(reply)?)?)
    }

    fn send(
        &self,
        service: &str,
        (method, path): (&str, &str),
        kind: &str,
        body: &str,
    ) -> Result<String> {
        let address = self.var("AWS_ENDPOINT_URL").trim_start_matches("http://");
        // moto keeps regions apart by it.
        let region = self.var("AWS_REGION");
        let mut stream = TcpStream::connect(address).context("the gateway listens")?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=AKID/20260101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=0\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(reply)
    }
}

fn body_of(reply: String) -> Result<String> {
    let (_, body) = reply.split_once("\r\n\r\n").context("a reply")?;
    Ok(body.to_owned())
}
