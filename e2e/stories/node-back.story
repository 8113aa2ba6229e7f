# It returns: Ready, and its old pods are gone.
~ kubectl get node n3 -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}'
True
~ kubectl get pods -l app=web -o jsonpath='{.items[*].metadata.deletionTimestamp}'
