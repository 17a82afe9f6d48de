module cluster.local/httpd

go 1.26
