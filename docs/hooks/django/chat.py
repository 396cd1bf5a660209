"""A chat with login. See docs/hooks.md.

    gunicorn --workers 4 --chdir docs/hooks/django chat:application
    lull serve --mode hooks --hook http://127.0.0.1:8000/lull --hook-concurrency 4 --origin http://127.0.0.1:8000
"""
import hashlib, hmac, os, time, urllib.request
from pathlib import Path
from urllib.parse import unquote

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import path

settings.configure(
    ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY=os.environ.get("DJANGO_SECRET", "change me"),
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies")
SECRET, API = os.environ.get("LULL_HOOK_SECRET", ""), os.environ.get("LULL_API", "http://127.0.0.1:8081")
PAGES = Path(__file__).parent.parent


def index(request):
    if request.method == "POST":
        request.session["name"] = request.POST["name"]
        return HttpResponseRedirect("/")
    return HttpResponse((PAGES / ("chat.html" if "name" in request.session else "login.html")).read_text())


def genuine(request):
    head = [request.headers.get("Lull-" + name, "") for name in ("Timestamp", "Id", "Event", "Connection", "User")]
    signature = "v1=" + hmac.new(SECRET.encode(), "\n".join(head).encode() + b"\n" + request.body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(signature, request.headers.get("Lull-Signature", "")) and abs(time.time() - int(head[0])) < 300


def lull(request):
    event, user = request.headers.get("Lull-Event"), unquote(request.headers.get("Lull-User", ""))
    if SECRET and event and not genuine(request):
        return HttpResponse("this is not from lull", status=403)
    if event == "connect":
        if "name" not in request.session:
            return HttpResponse("log in first", status=403, content_type="text/plain")
        return JsonResponse({"user": request.session["name"], "topics": ["chat"]})
    if event == "message":
        return HttpResponse(f"{user}: {request.body.decode()}", content_type="text/plain", headers={"Lull-Topic": "chat"})
    if event == "disconnect":
        try:
            urllib.request.urlopen(urllib.request.Request(API + "/topics/chat", f"{user} has left".encode(), {"Content-Type": "text/plain"}))
        except OSError:
            pass  # lull has ended, and everybody has left
    return HttpResponse()


urlpatterns = [path("", index), path("lull", lull)]
application = get_wsgi_application()
