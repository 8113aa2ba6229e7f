# A node is cut off: NotReady after its grace, its pods replaced on the other nodes.
$ kubectl patch deployment web --type=merge -p '{"spec":{"template":{"spec":{"tolerations":[{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":5},{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":5}]}}}}' >/dev/null
~ kubectl get node n3 -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}'
Unknown
~ kubectl get pods -l app=web --field-selector=status.phase=Running -o jsonpath='{range .items[*]}{.spec.nodeName}{"\n"}{end}' | grep -vc n3
3
~ kubectl get endpointslices -l kubernetes.io/service-name=web -o jsonpath='{range .items[*].endpoints[?(@.conditions.ready==true)]}{.nodeName}{"\n"}{end}' | grep -c n3
0
exit 1
