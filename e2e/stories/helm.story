# A chart with hooks and a custom resource: installed, upgraded, rolled back, tested and uninstalled.
$ helm install hi ../charts/greeter --wait --timeout 60s | grep -e STATUS -e REVISION
STATUS: deployed
REVISION: 1
$ kubectl get greetings
NAME   WORDS
hi     hello
$ kubectl explain greeting.spec.words | grep -A1 DESCRIPTION
DESCRIPTION:
    The words to say.
$ kubectl logs job/hi-pre-install
pre-install of revision 1
$ helm test hi | grep Phase
Phase:          Succeeded
$ helm upgrade hi ../charts/greeter --set greeting=howdy --set replicas=3 --wait --timeout 60s | grep -e STATUS -e REVISION
STATUS: deployed
REVISION: 2
$ kubectl get greeting hi -o jsonpath='{.spec}'
{"loud":false,"words":"howdy"}
$ kubectl logs job/hi-post-upgrade
post-upgrade of revision 2
$ helm upgrade hi ../charts/greeter --set greeting= 2>&1 | tail -1 | grep -o 'spec.words: .*'
spec.words: Invalid value: "": spec.words in body should be at least 1 chars long
$ helm rollback hi 1 --wait --timeout 60s
Rollback was a success! Happy Helming!
$ kubectl get deployment hi -o jsonpath='{.spec.replicas} {.status.readyReplicas}'
2 2
$ kubectl get greeting hi -o jsonpath='{.spec.words}'
hello
$ helm history hi | awk -F'\t' 'NR>1{print $1, $3, $6}' | tr -s ' '
1 superseded Install complete
2 superseded Upgrade complete
3 failed Upgrade "hi" failed: [..]
4 deployed Rollback to 1
$ helm uninstall hi --wait --timeout 60s
release "hi" uninstalled
$ kubectl get deployments,services,greetings,secrets -l release=hi
No resources found in default namespace.
$ kubectl delete jobs hi-pre-install hi-post-upgrade >/dev/null; kubectl delete crd greetings.example.org
customresourcedefinition.apiextensions.k8s.io "greetings.example.org" deleted
~ kubectl get greetings
Error from server (NotFound): Unable to list "example.org/v1, Resource=greetings": the server could not find the requested resource (get greetings.example.org)
exit 1
