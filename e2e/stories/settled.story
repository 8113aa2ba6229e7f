# Nothing is on its way any more.
~ kubectl get pods -l app=web --no-headers | wc -l
3
