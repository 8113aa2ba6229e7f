# Bad input of each kind: Kubernetes' own answer.
$ echo 'a: [' | kubectl apply -f - 2>&1 | head -1
error: error parsing STDIN: error converting YAML to JSON: [..]
$ ./api POST /api/v1/namespaces/default/configmaps -H 'content-type: application/yaml' -d 'a: ['
code 400
message "the object provided is unrecognized (must be of type ConfigMap): yaml: line 1: did not find expected node content (613a205b)"
reason "BadRequest"
$ ./api POST /api/v1/namespaces/default/configmaps -H 'content-type: application/json' -d '{"metadata":{"name":"bad"}'
code 400
message "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input ({\"metadata\":{\"name\":\"bad\"})"
reason "BadRequest"
$ ./api POST /api/v1/namespaces/default/configmaps -H 'content-type: application/json' -d '{"metadata":{"name":"bad"},"data":{"a":1}}'
code 400
message "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string"
reason "BadRequest"
$ ./api POST '/api/v1/namespaces/default/configmaps?fieldValidation=Strict' -H 'content-type: application/json' -d '{"metadata":{"name":"bad","name":"worse"},"dta":{}}'
code 400
message "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: duplicate field \"metadata.name\", unknown field \"dta\""
reason "BadRequest"
$ echo '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"bad"},"dta":{}}' | kubectl apply -f - 2>&1 | grep -o 'unknown field.*'
unknown field "dta"
$ ./api POST /api/v1/namespaces/default/pods -H 'content-type: application/json' -d '{"metadata":{"name":"Bad_Name"},"spec":{"containers":[{"name":"a"},{"name":"a","image":"i"}],"restartPolicy":"Sometimes"}}'
code 422
field "metadata.name"
message "Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character [..]
reason "FieldValueInvalid"
field "spec.containers[0].image"
message "Required value"
reason "FieldValueRequired"
field "spec.containers[1].name"
message "Duplicate value: \"a\""
reason "FieldValueDuplicate"
field "spec.restartPolicy"
message "Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\""
reason "FieldValueNotSupported"
message "Pod \"Bad_Name\" is invalid: [metadata.name: Invalid value: [..]
reason "Invalid"
$ ./api PUT /api/v1/namespaces/default/configmaps/kube-root-ca.crt -H 'content-type: application/json' -d '{"metadata":{"name":"kube-root-ca.crt","resourceVersion":"1"}}'
code 409
message "Operation cannot be fulfilled on configmaps \"kube-root-ca.crt\": the object has been modified; please apply your changes to the latest version and try again"
reason "Conflict"
$ kubectl get configmap bad
Error from server (NotFound): configmaps "bad" not found
exit 1
$ ./api DELETE /api/v1/namespaces/default/configmaps/bad
code 404
message "configmaps \"bad\" not found"
reason "NotFound"
$ kubectl get widgets
error: the server doesn't have a resource type "widgets"
exit 1
$ kubectl create configmap bad --namespace=nowhere
error: failed to create configmap: namespaces "nowhere" not found
exit 1
$ kubectl get pods --as=nobody
Error from server (Forbidden): pods is forbidden: User "nobody" cannot list resource "pods" in API group "" in the namespace "default"
exit 1
$ ./api GET /api/v1/pods --cert '' -H 'authorization: Bearer wrong'
code 401
message "Unauthorized"
reason "Unauthorized"
$ curl -s --cacert $DATA/pki/ca.crt -o /dev/null -w '%{http_code}' https://127.0.0.1:6443/api/v1/pods
403
$ ./api POST /api/v1/namespaces/default/configmaps -H 'content-type: application/xml' -d '<a/>'
code 415
message "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"
reason "UnsupportedMediaType"
$ ./api GET /api/v1/pods -H 'accept: application/xml'
code 406
message "[..]application/json, application/yaml, application/vnd.kubernetes.protobuf[..]
reason "NotAcceptable"
$ ./api PATCH /api/v1/namespaces/default/configmaps/kube-root-ca.crt -H 'content-type: text/plain' -d '{}'
code 415
message "[..]
reason "UnsupportedMediaType"
$ head -c 4000000 /dev/zero | tr '\0' a > $WORK/large; ./api POST /api/v1/namespaces/default/configmaps -H 'content-type: application/json' --data-binary @$WORK/large
code 413
message "Request entity too large: limit is 3145728"
reason "RequestEntityTooLarge"
$ (printf '{"metadata":{"name":"bad"},"data":{"a":"'; head -c 2000000 /dev/zero | tr '\0' a; printf '"}}') > $WORK/large; ./api POST /api/v1/namespaces/default/configmaps -H 'content-type: application/json' --data-binary @$WORK/large
code 422
field "[..]"
message "Too long: may not be more than 1048576 bytes"
reason "FieldValueTooLong"
message "ConfigMap \"bad\" is invalid: []: Too long: may not be more than 1048576 bytes"
reason "Invalid"
$ (printf '{"metadata":'; head -c 1000000 /dev/zero | tr '\0' '['; head -c 1000000 /dev/zero | tr '\0' ']'; printf '}') > $WORK/deep; ./api POST /api/v1/namespaces/default/configmaps -H 'content-type: application/json' --data-binary @$WORK/deep
code 400
message "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: invalid character '[' exceeded max depth ({\"metadata\":[[[[[[[[[[[[[[[[[[ ...)"
reason "BadRequest"
$ (printf 'a: '; head -c 1000000 /dev/zero | tr '\0' '['; head -c 1000000 /dev/zero | tr '\0' ']') > $WORK/deep; ./api POST /api/v1/namespaces/default/configmaps -H 'content-type: application/yaml' --data-binary @$WORK/deep | cut -c1-120
code 400
message "the object provided is unrecognized (must be of type ConfigMap): yaml: exceeded max depth of 10000 [..]
reason "BadRequest"
$ (echo 'a: &a [x,x,x,x,x,x,x,x,x]'; p=a; for c in b c d e f g h i; do echo "$c: &$c [*$p,*$p,*$p,*$p,*$p,*$p,*$p,*$p,*$p]"; p=$c; done) > $WORK/bomb; ./api POST /api/v1/namespaces/default/configmaps -H 'content-type: application/yaml' --data-binary @$WORK/bomb | cut -c1-140
code 400
message "the object provided is unrecognized (must be of type ConfigMap): yaml: document contains excessive aliasing [..]
reason "BadRequest"
$ ./api PATCH '/api/v1/namespaces/default/configmaps/kube-root-ca.crt?fieldManager=x' -H 'content-type: application/apply-patch+yaml' --data-binary @$WORK/bomb
code 400
message "error encoding patch: yaml: document contains excessive aliasing"
reason "BadRequest"
$ (printf '['; for i in $(seq 10000); do printf '{"op":"add","path":"/data/a","value":"b"},'; done; printf '{"op":"add","path":"/data/a","value":"b"}]') > $WORK/patches; ./api PATCH /api/v1/namespaces/default/configmaps/kube-root-ca.crt -H 'content-type: application/json-patch+json' --data-binary @$WORK/patches
code 413
message "[..]10000[..]10001[..]
reason "RequestEntityTooLarge"
$ kubectl get configmaps -o name
configmap/kube-root-ca.crt
$ kubectl get configmap kube-root-ca.crt -o jsonpath='{.data.a}'
$ rm $WORK/large $WORK/deep $WORK/bomb $WORK/patches
