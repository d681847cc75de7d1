//! Tests of uploads, as the platform's own clients make them.

use awc::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// A form as the Web SDK writes it: without types, and without a line end behind the last boundary.
#[derive(Clone, Default)]
struct WebForm(String);

impl WebForm {
    fn text(mut self, name: &str, value: &str) -> Self {
        let part = format!("--web\r\nContent-Disposition: form-data; name=\"{name}\";\r\n\r\n{value}\r\n");
        self.0.push_str(&part);
        self
    }

    fn file(mut self, name: &str, file_name: &str, content: &[u8]) -> Self {
        let part = format!(
            "--web\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{file_name}\"\r\n\
             Content-Type: UTF-8; charset=ISO-8859-1\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n",
            STANDARD.encode(content)
        );
        self.0.push_str(&part);
        self
    }

    fn body(self) -> Vec<u8> {
        (self.0 + "--web--").into_bytes()
    }
}

impl Caller {
    async fn upload(&self, method: Method, path: &str, bearer: &str, body: Vec<u8>) -> (u16, Value) {
        let request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(bearer);
        let request = request.content_type("multipart/form-data; boundary=web");
        let mut response = request.send_body(body).await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn file_token(&self, path: &str, bearer: &str) -> String {
        let (status, body) = self.upload(Method::POST, path, bearer, Vec::new()).await;
        assert_eq!(status, 200, "{body}");
        assert!(body["expiresOn"].as_i64().unwrap() > clock::now().as_second());
        body["fileToken"].as_str().unwrap().to_owned()
    }
}

fn described(name: &str) -> WebForm {
    WebForm::default()
        .text("fileExtension", "png")
        .text("fileContext", "workflows")
        .text("thumbnailUpload", "false")
        .text("filename", name)
}

#[test]
fn whole_file_of_the_web_sdk_is_stored_and_has_a_url() {
    run(async |sandbox, script, caller| {
        let token = caller.grant().await;
        let form =
            described("größe.png").file("file", "größe.png", b"\x00\xff\r\n").file("thumbnail", "t", b"x");
        let path = "/api/1.1/attachment/file";
        let (status, body) = caller.upload(Method::POST, path, &token, form.body()).await;
        assert_eq!(status, 200, "{body}");
        let id = body["fileId"].as_str().unwrap();
        let heard = caller.call("GET", "/sandbox/heard?user=ann&wait=0", "").await.1;
        let told = heard["events"].as_array().unwrap().iter().find(|event| event["kind"] == "file").unwrap();
        assert_eq!((&told["chunks"], told["size"].is_u64()), (&Value::Null, true));
        let files = script.observed("ann").files;
        assert_eq!((&*files[0].name, &*files[0].extension, files[0].chunks), ("größe.png", "png", None));
        assert_eq!((&*files[0].content, &*files[0].context), (&b"\x00\xff\r\n"[..], "workflows"));

        let path = format!("/api/attachment/v2/stream/{BOT_ID}/file/{id}/url");
        let (status, body) = caller.upload(Method::GET, &path, &token, Vec::new()).await;
        assert_eq!(status, 200);
        let mut file = caller.http.get(body["fileUrl"].as_str().unwrap()).send().await.unwrap();
        assert_eq!(file.body().await.unwrap(), &b"\x00\xff\r\n"[..]);
        script.behave(|behaviour| behaviour.files.urls = false);
        assert_eq!(caller.upload(Method::GET, &path, &token, Vec::new()).await.0, 404);
        assert_eq!(script.totals().file_calls, 3);
        sandbox.stop().await;
    });
}

#[test]
fn chunks_with_piled_up_parts_and_two_tokens_make_a_file() {
    run(async |_sandbox, script, caller| {
        let bearer = caller.grant().await;
        let path = "/api/1.1/attachment/file";
        let token = caller.file_token(&format!("{path}/token"), &bearer).await;
        let second = caller.file_token(&format!("{path}/token"), &bearer).await;
        let mut form = described("old.png").file("file", "old.png", b"of an earlier upload");
        // The last chunk of a file of whole mebibytes has no file in it.
        for (number, content) in [(0, Some(vec![1; 1 << 20])), (1, Some(vec![2; 1 << 20])), (2, None)] {
            form = form.text("chunkNo", &number.to_string()).text("messageToken", &second);
            form = match content {
                Some(content) => form.file("chunk", "new.png", &content),
                None => form.text("chunk", "[object Object]"),
            };
            let (status, body) = caller
                .upload(Method::POST, &format!("{path}/{token}/chunk"), &bearer, form.clone().body())
                .await;
            assert_eq!((status, &body["chunkNo"]), (200, &json!(number.to_string())));
        }
        let form = form.text("totalChunks", "3").text("messageToken", &second).text("filename", "new.png");
        let (status, body) =
            caller.upload(Method::PUT, &format!("{path}/{token}"), &bearer, form.body()).await;
        assert_eq!(status, 200, "{body}");
        let files = script.observed("ann").files;
        assert_eq!(
            (&*files[0].name, files[0].chunks, files[0].content.len()),
            ("new.png", Some(3), (2 << 20) + 15)
        );
    });
}

#[test]
fn missing_chunks_are_named_until_they_are_there() {
    run(async |_sandbox, script, caller| {
        script.behave(|behaviour| behaviour.files.lost_chunks = [1].into());
        let bearer = caller.grant().await;
        let token = caller.file_token("/api/1.1/users/u-1/file/token", &bearer).await;
        let path = format!("/api/1.1/users/u-1/file/{token}");
        let chunk = async |number: usize| {
            // The mobile SDKs write raw bytes.
            let body = format!(
                "--web\r\nContent-Disposition: form-data; name=\"chunkNo\"\r\n\r\n{number}\r\n\
                 --web\r\nContent-Disposition: form-data; name=\"chunk\"; filename=\"a\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n{number}\r\n--web--\r\n"
            );
            caller.upload(Method::POST, &format!("{path}/chunk"), &bearer, body.into_bytes()).await
        };
        assert_eq!(chunk(0).await.0, 200);
        assert_eq!(chunk(1).await.0, 200);
        let commit = described("a.png").text("totalChunks", "3");
        let (status, body) = caller.upload(Method::PUT, &path, &bearer, commit.clone().body()).await;
        assert_eq!((status, &body["errors"][0]["msg"]), (404, &json!("[1,2]")));
        assert_eq!(body["errors"][0]["httpStatus"], "404");
        assert_eq!((chunk(1).await.0, chunk(2).await.0), (200, 200));
        assert_eq!(caller.upload(Method::PUT, &path, &bearer, commit.clone().body()).await.0, 200);
        assert_eq!(&*script.observed("ann").files[0].content, b"012");
        // The token is used up.
        assert_eq!(caller.upload(Method::PUT, &path, &bearer, commit.body()).await.0, 400);
    });
}

#[test]
fn webhook_client_uploads_with_its_jwt() {
    run(async |_sandbox, script, caller| {
        let jwt = caller.assertion(&json!({}));
        let form = described("a.png").file("file", "a.png", b"whole");
        let path = format!("/api/attachments/file/{BOT_ID}/ivr");
        assert_eq!(caller.upload(Method::POST, &path, &jwt, form.clone().body()).await.0, 200);
        let (status, body) = caller.upload(Method::POST, &path, "no.jwt.here", form.body()).await;
        assert_eq!((status, &body["errors"][0]["httpStatus"]), (401, &json!("401")));

        let path = format!("/api/attachments/{BOT_ID}/ivr/token");
        let token = caller.file_token(&path, &jwt).await;
        let chunk = WebForm::default().text("chunkNo", "0").file("chunk", "a.png", b"chunk");
        let path = format!("{path}/{token}");
        assert_eq!(caller.upload(Method::POST, &format!("{path}/chunk"), &jwt, chunk.body()).await.0, 200);
        let commit = described("a.png").text("totalChunks", "1");
        assert_eq!(caller.upload(Method::PUT, &format!("{path}/chunk"), &jwt, commit.body()).await.0, 200);
        let files = script.observed("ann").files;
        assert_eq!((&*files[0].content, &*files[1].content), (&b"whole"[..], &b"chunk"[..]));
    });
}

#[test]
fn refused_upload_has_its_status_as_a_text() {
    run(async |_sandbox, script, caller| {
        let bearer = caller.grant().await;
        let path = "/api/1.1/attachment/file";
        let whole = || described("a.png").file("file", "a.png", &[0; 100]).body();
        script.behave(|behaviour| behaviour.files.limit = 99);
        assert_eq!(caller.upload(Method::POST, path, &bearer, whole()).await.0, 413);
        script.behave(|behaviour| {
            behaviour.files = FileBehaviour { tokens_expired: true, ..FileBehaviour::default() }
        });
        let (status, body) = caller.upload(Method::POST, &format!("{path}/token"), &bearer, Vec::new()).await;
        assert_eq!(status, 200);
        let chunk = WebForm::default().text("chunkNo", "0").file("chunk", "a", b"1").body();
        let expired = format!("{path}/{}/chunk", body["fileToken"].as_str().unwrap());
        assert_eq!(caller.upload(Method::POST, &expired, &bearer, chunk).await.0, 400);
        script.fault_next(Endpoint::File, 1, Fault::TokenExpired);
        let refused = json!({"errors": [{"msg": "Unauthorized", "code": 401, "httpStatus": "401"}]});
        assert_eq!(caller.upload(Method::POST, path, &bearer, whole()).await, (401, refused.clone()));
        script.expire_tokens();
        assert_eq!(caller.upload(Method::POST, path, &bearer, whole()).await, (401, refused));
    });
}

#[test]
fn bot_names_the_files_of_a_message_or_stalls() {
    run(async |_sandbox, script, caller| {
        let bearer = caller.grant().await;
        let form = described("a.png").file("file", "a.png", b"12345");
        let (_, body) = caller.upload(Method::POST, "/api/1.1/attachment/file", &bearer, form.body()).await;
        let mut link = caller.connect_quietly().await;
        let mut number = 0;
        let mut send = async |link: &mut Link, files: Value, text: Option<&str>| {
            number += 1;
            let mut message = json!({"attachments": files});
            if let Some(text) = text {
                message["body"] = json!(text);
            }
            link.send(&json!({"clientMessageId": number, "id": number, "resourceid": "/bot.message", "message": message}))
                .await;
        };
        let files =
            json!([{"fileId": body["fileId"], "fileName": "a.png", "fileType": "image"}, {"fileId": "f-9"}]);
        send(&mut link, files.clone(), None).await;
        let answer = "I received a.png (5 bytes), f-9 (a file that I do not have).";
        assert_eq!(link.brief(2).await, ["ack", answer]);
        script.behave(|behaviour| behaviour.files.stalls = true);
        send(&mut link, files.clone(), None).await;
        send(&mut link, json!([]), Some("hello?")).await;
        send(&mut link, files, Some("with a text")).await;
        assert_eq!(link.brief(4).await, ["ack", "ack", "ack", answer]);
    });
}
