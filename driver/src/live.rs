//! Answers live questions by asking the API server, and puts the answers into the World.

use futures::StreamExt;
use http::Method;
use reconcile::{Access, Answer, Failure, Key, Live, ObjectName, Resource, Watch};
use serde_json::{Value, json};

use crate::request::{self, Form};
use crate::shared::{Reading, Shared};
use crate::{discover, source};

/// Questions of one decision under way at once.
const WIDTH: usize = 8;

/// Asks all questions and puts the answers into the World; a question that cannot be answered is answered so.
pub(crate) async fn answer(shared: &Shared, decider: &'static str, key: &Key, questions: Vec<Live>) {
    let asked = questions.into_iter().map(|question| async move {
        let answer = ask(shared, &question).await;
        (question, answer.unwrap_or_else(|f| Answer::Failed(f.message)))
    });
    let answers: Vec<(Live, Answer)> = futures::stream::iter(asked).buffer_unordered(WIDTH).collect().await;
    let mut world = shared.world_mut();
    for (question, answer) in answers {
        if let Answer::Resources(resources) = &answer {
            world.discovered(resources.clone());
            shared.rediscover.notify_one();
        }
        world.answer(decider, key, question, answer);
    }
}

async fn ask(shared: &Shared, question: &Live) -> Result<Answer, Failure> {
    let Ok(_permit) = shared.requests.acquire().await else { return Ok(Answer::Failed("stopping".into())) };
    match question {
        Live::Object(resource, name) => object(shared, resource, name).await,
        Live::List(resource, namespace) => {
            let (objects, _) = source::list(shared, resource, namespace, &metadata(resource)).await?;
            Ok(Answer::List(objects))
        }
        Live::Resources => discover::resources(&shared.client).await.map(Answer::Resources),
        Live::Access(access) => review(shared, access).await,
    }
}

fn metadata(resource: &Resource) -> Reading {
    Reading { parse: Watch::metadata_of(resource.clone()).parse, metadata_only: true, drops: Vec::new() }
}

async fn object(shared: &Shared, resource: &Resource, name: &ObjectName) -> Result<Answer, Failure> {
    let request = request::get(&request::object(resource, name, ""), Form::Metadata)?;
    match shared.client.request_text(request).await.map_err(request::failure) {
        Ok(text) => Ok(Answer::Object(Some(metadata(resource).read(text.as_bytes())?))),
        Err(failure) if failure.code == 404 => Ok(Answer::Object(None)),
        Err(failure) => Err(failure),
    }
}

async fn review(shared: &Shared, access: &Access) -> Result<Answer, Failure> {
    let body = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {
            "user": access.user, "groups": access.groups,
            "resourceAttributes": {
                "verb": access.verb, "group": access.group, "resource": access.resource,
                "subresource": access.subresource, "version": "*",
            },
        },
    });
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let request = request::send(Method::POST, path, "application/json", &body)?;
    let answer: Value = shared.client.request(request).await.map_err(request::failure)?;
    Ok(Answer::Access(answer["status"]["allowed"] == json!(true)))
}
